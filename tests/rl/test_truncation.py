"""Top-k, top-p and min-p: as transformers' warpers have them, and what samples say of them."""

from __future__ import annotations

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from guardjax.rl.draw import draw
from guardjax.rl.logprobs import token_logprobs
from guardjax.rl.ratios import truncated_weights
from guardjax.rl.sampling import SamplingParams, generate
from guardjax.rl.transform import NEVER, make_transform
from guardjax.rl.truncation import Truncation
from tests.rl.warper_cases import TRUNCATIONS, make_logits

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "rl" / "warpers.npz"


@pytest.mark.parametrize("case", range(len(TRUNCATIONS)))
def test_as_transformers(case):
    """The same tokens are kept, with the same log-probabilities to 1e-5."""
    want = np.load(GOLDEN)["logp"][case]
    cut = np.asarray(Truncation(*TRUNCATIONS[case])(make_logits()))
    np.testing.assert_array_equal(cut > NEVER, np.isfinite(want))
    found = np.asarray(jax.nn.log_softmax(cut))
    np.testing.assert_allclose(found[np.isfinite(want)], want[np.isfinite(want)], atol=1e-5)


def test_goldens_cut_something_and_not_everything():
    kept = np.isfinite(np.load(GOLDEN)["logp"]).sum(-1)
    assert kept.shape == (len(TRUNCATIONS), 6) and (kept >= 1).all()
    assert (kept[0] == 61).all() and all((row < 61).any() for row in (*kept[1:3], *kept[4:]))


def test_ties_and_blocked_tokens_and_nan():
    tied = np.array([1.0, 3.0, 2.0, 2.0, NEVER], np.float32)
    assert (np.asarray(Truncation(top_k=2)(tied)) > NEVER).tolist() == [0, 1, 1, 1, 0]
    assert (np.asarray(Truncation(top_p=0.5)(tied)) > NEVER).tolist() == [0, 1, 0, 0, 0]
    assert (np.asarray(Truncation(top_k=5, min_p=1e-9)(tied)) > NEVER).tolist() == [1, 1, 1, 1, 0]
    for truncation in (Truncation(top_k=2), Truncation(top_p=0.5), Truncation(min_p=0.5)):
        assert np.isnan(np.asarray(truncation(np.array([np.nan, 1.0, 2.0], np.float32)))).any()
        keys = jax.random.split(jax.random.key(0), 1)
        drawn = draw(keys, jnp.int32(0), jnp.full((1, 3), jnp.nan), truncation=truncation)
        assert np.isnan(drawn.logp).all() and np.isnan(drawn.model_logp).all()


@pytest.mark.parametrize("choice, message", [
    ({"top_k": -1}, r"top_k must be >= 0, got -1; 0 keeps all"),
    ({"top_p": 0.0}, r"top_p must be in \(0, 1\], got 0\.0; 1 keeps all"),
    ({"top_p": 1.5}, r"top_p must be in \(0, 1\], got 1\.5"),
    ({"top_p": float("nan")}, r"top_p must be in \(0, 1\], got nan"),
    ({"min_p": 1.0}, r"min_p must be in \[0, 1\), got 1\.0; 0 keeps all"),
    ({"min_p": -0.1}, r"min_p must be in \[0, 1\), got -0\.1"),
])
def test_refusals(choice, message):
    with pytest.raises(ValueError, match=message):
        Truncation(**choice)


def test_greedy_and_truncation_exclude_each_other():
    with pytest.raises(ValueError, match="greedy takes the most likely token"):
        SamplingParams(1, 4, 1, 0, greedy=True, truncation=Truncation(top_k=2))


def test_both_log_probabilities_are_what_they_say(toy):
    """The sampler's by NumPy in float64 from the model's; the model's as `token_logprobs` has it.

    Their difference is the mass that was kept, and so the weight that the loss gives to a token.
    """
    prompts = toy.make_prompts()
    transform = make_transform(toy.vocab, temperature=3.0, blocked=[toy.image])
    sampling = SamplingParams(16, 4, toy.end, toy.pad, truncation=Truncation(top_k=4, top_p=0.8))
    every = jnp.broadcast_to(jnp.arange(toy.vocab)[None, :, None], (3, toy.vocab, 1))

    @jax.jit
    def run(params):
        samples = generate(toy.fns, params, prompts, jax.random.key(2), sampling, transform)
        logp, _ = token_logprobs(
            toy.fns, params, prompts, samples.tokens, samples.length, transform)
        first, _ = token_logprobs(
            toy.fns, params, prompts, every, jnp.ones((3, toy.vocab), jnp.int32), transform)
        return samples, logp, first[..., 0]

    samples, logp, first = jax.device_get(run(toy.params))
    np.testing.assert_allclose(samples.model_logp, logp, atol=2e-5)
    mask = np.arange(4) < samples.length[..., None]
    kept = np.exp(samples.model_logp - samples.logp)
    assert (kept[mask] < 1 + 1e-6).all() and kept[mask].min() < 0.99
    for row, all_logp in enumerate(first.astype(np.float64)):
        order = np.argsort(-all_logp)[:4]
        share = np.exp(all_logp[order]) / np.exp(all_logp[order]).sum()
        order = order[: 1 + np.searchsorted(np.cumsum(share), 0.8)]
        assert set(samples.tokens[row, :, 0]) <= set(order) and len(set(order)) > 1
        np.testing.assert_allclose(kept[row, :, 0], np.exp(all_logp[order]).sum(), rtol=1e-5)
    weights = truncated_weights(logp, samples.logp, mask, level="token", cap=2.0)
    np.testing.assert_allclose(weights[mask], kept[mask], rtol=1e-4)
