"""Decoding in slots: the same samples, whoever else is there, without waiting for the longest."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from guardjax.rl.sampling import SamplingParams, generate
from guardjax.rl.transform import make_transform

GROUP, TOKENS, SLOTS = 6, 9, 4


@pytest.fixture(scope="module")
def run(toy):
    """`run(prompts, slots=, ...)`; programs that were built are counted in `run.programs`."""
    programs = []

    def sample(slots, steps, params, prompts, key, index, limit):
        programs.append(slots)      # Python runs while tracing only

        def forward(params, segments, features, cache):
            if cache is not None and steps is not None:
                jax.debug.callback(lambda: steps.append(1))
            return toy.fns.forward(params, segments, features, cache)

        sampling = SamplingParams(GROUP, TOKENS, toy.end, toy.pad, slots=slots)
        transform = make_transform(toy.vocab, temperature=4.0, blocked=[toy.image])
        return generate(dataclasses.replace(toy.fns, forward=forward), params, prompts, key,
                        sampling, transform, example_index=index, limit=limit)

    compiled = jax.jit(sample, static_argnums=(0, 1))

    def call(prompts, *, slots=SLOTS, steps=None, key=3, index=None, limit=None):
        batch = prompts.next_pos.shape[0]
        index = jnp.arange(batch, dtype=jnp.int32) if index is None else index
        limit = np.full((batch, GROUP), TOKENS, np.int32) if limit is None else limit
        return jax.device_get(compiled(
            slots, steps, toy.params, prompts, jax.random.key(key), index, limit))

    call.programs = programs
    return call


def same(one, other, rows=slice(None), of=slice(None)):
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[rows], b[of]), one, other)


def test_as_decoded_together(toy, run):
    """Tokens exactly, log-probabilities to 2e-6; one prompt is a filler."""
    prompts = toy.make_prompts((5, 0, 6), width=6)
    together, in_slots = run(prompts, slots=0), run(prompts)
    for name in ("tokens", "length", "ended"):
        np.testing.assert_array_equal(getattr(together, name), getattr(in_slots, name))
    np.testing.assert_allclose(together.logp, in_slots.logp, atol=2e-6)
    np.testing.assert_array_equal(in_slots.logp, in_slots.model_logp)
    assert (in_slots.length[1] == 0).all() and in_slots.ended[1].all()
    assert len(np.unique(in_slots.length[[0, 2]])) > 3 and not in_slots.ended.all()


def test_bitwise_the_same_whoever_else_is_there(toy, run):
    """Other lengths beside it, other neighbours, another place in the batch: not a bit changes."""
    prompts = toy.make_prompts((5, 4, 6), width=6)
    index = jnp.array([7, 8, 9], jnp.int32)
    alone = run(prompts, index=index)
    limit = np.full((3, GROUP), TOKENS, np.int32)
    limit[[0, 2]] = np.random.default_rng(0).integers(1, TOKENS, (2, GROUP))
    same(alone, run(prompts, index=index, limit=limit), 1, 1)
    others = toy.make_prompts((3, 4, 2), width=6, seed=9)
    keep = np.array([0, 1, 0], bool)
    mixed = jax.tree.map(lambda a, b: jnp.where(keep.reshape(-1, *[1] * (a.ndim - 1)), a, b),
                         prompts, others)
    same(alone, run(mixed, index=index), 1, 1)
    turned = jax.tree.map(lambda x: x[jnp.array([1, 2, 0])], prompts)
    same(alone, run(turned, index=index[jnp.array([1, 2, 0])]), 1, 0)
    assert (run(prompts).tokens != alone.tokens).any(), "the example's index is part of its keys"


def test_a_long_answer_holds_nobody_up(toy, run):
    """One long answer in each prompt: fewer slot steps than three batches as long as the longest.

    Each step decodes one token of at most S answers, so there are at least sum / S of them; the
    last answers may stand alone.
    """
    limit = np.full((3, GROUP), 2, np.int32)
    limit[:, 0] = TOKENS
    steps = Steps()
    samples = run(toy.make_prompts(), limit=limit, steps=steps)
    jax.effects_barrier()
    fed = np.maximum(samples.length - 1, 0)
    assert fed.max() >= TOKENS - 2, "else nothing is long"
    ideal = -(-fed.sum() // SLOTS)
    assert ideal <= len(steps) <= ideal + fed.max()
    assert len(steps) < 3 * GROUP / SLOTS * fed.max() / 2


class Steps(list):
    """A list that `jit` takes for a static argument."""

    __hash__ = object.__hash__


def test_one_program_serves_all_lengths_and_prompts(toy, run):
    for seed in range(3):
        limit = np.random.default_rng(seed).integers(1, TOKENS + 1, (3, GROUP)).astype(np.int32)
        samples = run(toy.make_prompts((5, 3, 6), seed=seed), key=seed, limit=limit)
        assert (samples.length <= limit).all()
        cut = ~samples.ended
        assert cut.any() and (samples.length[cut] == limit[cut]).all()
    assert run.programs.count(SLOTS) <= 3, "two widths of prompts, one with its steps counted"


@pytest.mark.parametrize("slots", [1, 3 * GROUP])
def test_any_number_of_slots(toy, run, slots):
    prompts = toy.make_prompts()
    np.testing.assert_array_equal(run(prompts, slots=slots).tokens, run(prompts).tokens)


def test_refusals(toy):
    prompts, transform = toy.make_prompts(), make_transform(toy.vocab)

    def call(slots, fns=toy.fns):
        generate(fns, toy.params, prompts, jax.random.key(0),
                 SamplingParams(4, 3, toy.end, toy.pad, slots=slots), transform)

    with pytest.raises(ValueError, match="13 slots do not fit: 3 prompts have 12 answers"):
        call(13)
    with pytest.raises(ValueError, match="slots must be >= 0, got -1; 0 decodes all together"):
        call(-1)
    with pytest.raises(ValueError, match="this model's cache has no slots; set slots to 0"):
        call(2, dataclasses.replace(toy.fns, open_slots=None))
