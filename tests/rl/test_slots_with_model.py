"""Slots over the real architecture, small: M-RoPE, the key/value cache, layers in a loop."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from guardjax import models
from guardjax.models.tiny import tiny_config
from guardjax.rl.logprobs import token_logprobs
from guardjax.rl.model_fns import bind
from guardjax.rl.sampling import SamplingParams, generate
from guardjax.rl.transform import make_transform
from guardjax.types import PromptBatch, Segment

GROUP, TOKENS, SLOTS, VOCAB = 4, 8, 5, 64
END = tiny_config(VOCAB).text.eos_token_id
# Few words beside the end, so that answers differ in length.
TRANSFORM = make_transform(VOCAB, temperature=1.5,
                           blocked=[token for token in range(10, VOCAB) if token != END])


@pytest.fixture(scope="module")
def cfg():
    cfg = tiny_config(VOCAB)
    text = dataclasses.replace(cfg.text, num_hidden_layers=2)
    vision = dataclasses.replace(cfg.vision, depth=1, fullatt_block_indexes=(0,))
    return dataclasses.replace(cfg, text=text, vision=vision)


@pytest.fixture(scope="module")
def sample():
    """`sample(cfg, slots, prompts, index, limit)`, one program for each of the first two."""
    def run(cfg, slots, params, prompts, index, limit):
        sampling = SamplingParams(GROUP, TOKENS, END, cfg.text.pad_token_id, slots=slots)
        return generate(bind(models, cfg), params, prompts, jax.random.key(4), sampling, TRANSFORM,
                        example_index=index, limit=limit)

    compiled, params = jax.jit(run, static_argnums=(0, 1)), {}

    def call(cfg, slots, prompts, index=(0, 1, 2), limit=np.full((3, GROUP), TOKENS, np.int32)):
        if cfg not in params:
            params[cfg] = models.init_params(cfg, jax.random.key(0))
        return jax.device_get(compiled(
            cfg, slots, params[cfg], prompts, jnp.array(index, jnp.int32), jnp.asarray(limit)))

    call.compiled, call.params = compiled, params
    return call


def make_prompts(seed=0):
    rng, lengths, width = np.random.default_rng(seed), np.array([7, 11, 4]), 11
    mask = np.arange(width) < lengths[:, None]
    words = np.where(mask, rng.integers(0, VOCAB - 14, (3, width)), 0).astype(np.int32)
    places = np.broadcast_to(np.arange(width, dtype=np.int32)[:, None], (3, width, 3))
    prompts = PromptBatch(Segment(words, places, mask), lengths.astype(np.int32) + 2)
    return jax.tree.map(jnp.asarray, prompts)


@pytest.mark.parametrize("scan", [pytest.param(False, marks=pytest.mark.slow), True])
def test_as_decoded_together_and_as_recomputed(cfg, sample, scan):
    """Tokens exactly, log-probabilities to 2e-5 in float32."""
    cfg, prompts = dataclasses.replace(cfg, scan_layers=scan), make_prompts()
    together, slots = sample(cfg, 0, prompts), sample(cfg, SLOTS, prompts)
    assert len(np.unique(slots.length)) > 3
    np.testing.assert_array_equal(together.tokens, slots.tokens)
    np.testing.assert_array_equal(together.ended, slots.ended)
    np.testing.assert_allclose(together.logp, slots.logp, atol=2e-5)
    logp, _ = jax.jit(lambda params: token_logprobs(
        bind(models, cfg), params, prompts, slots.tokens, slots.length, TRANSFORM)
    )(sample.params[cfg])
    np.testing.assert_allclose(logp, slots.logp, atol=2e-5)


@pytest.fixture
def usual_compilation():
    """The optimisations that `conftest` turns off: what they fuse decides the last bits."""
    jax.config.update("jax_disable_most_optimizations", False)
    jax.clear_caches()
    yield
    jax.config.update("jax_disable_most_optimizations", True)
    jax.clear_caches()


def test_bitwise_the_same_whoever_else_is_there(usual_compilation, cfg, sample):
    """Other answers of other lengths, other prompts: slot and order change, not a bit does."""
    prompts, index = make_prompts(), (5, 6, 7)
    alone = sample(cfg, SLOTS, prompts, index)
    keep = np.array([0, 1, 0], bool)
    mixed = jax.tree.map(lambda a, b: jnp.where(keep.reshape(-1, *[1] * (a.ndim - 1)), a, b),
                         prompts, make_prompts(8))
    for seed in range(3):
        limit = np.random.default_rng(seed).integers(1, TOKENS + 1, (3, GROUP)).astype(np.int32)
        limit[1] = TOKENS
        for batch in (prompts, mixed):
            other = sample(cfg, SLOTS, batch, index, limit)
            jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[1], b[1]), alone, other)
    assert sample.compiled._cache_size() == 1, "one program for all of them"
