"""How stage `grpo` samples: truncated, stopped, in slots; what it says of it, and when it stops."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from guardjax.rewards.compose import Composition, Part
from guardjax.rewards.named import COMPOSITIONS
from guardjax.train.stages.grpo import GRPOStage
from guardjax.train.stages.logp_gap import GAP, LogpGapError, LogpGapGuard
from guardjax.train.stages.rollout import decode_answers
from guardjax.train.state import Bundle
from guardjax.types import Samples

GROUP, TOKENS = 4, 4


def alternating_reward(examples, completions):
    """Every second answer of a group is better."""
    return np.arange(len(completions)) % 2 * 1.0, np.ones(len(completions), bool)


@pytest.fixture(scope="module")
def start(small_guard, quick_compilation):
    """Returns (stage, bundle) of `rl`'s choices."""
    COMPOSITIONS["alternating"] = Composition((Part("alternating", alternating_reward),))

    def start(**rl):
        config = small_guard.config("grpo", 2)
        config = dataclasses.replace(config, rl=type(config.rl)(
            **{"group_size": GROUP, "max_tokens": TOKENS, "reward": "alternating"} | rl))
        stage = GRPOStage(config, small_guard.model, small_guard.source(num=2), 3)
        return stage, stage.init(Bundle(frozen=small_guard.params))

    yield start
    del COMPOSITIONS["alternating"]


def test_a_truncated_rollout_in_slots_is_weighed_by_the_mass_that_was_kept(start, small_guard):
    """Two steps: gap and weights, masked ids, stops, one program each."""
    tokenizer = small_guard.model.batcher.tokenizer
    stage, bundle = start(top_k=300, top_p=0.9, correction="token", slots=3, stop=("a", " the"),
                          temperature=0.7)
    stops = [tokenizer.untrusted(text) for text in ("a", " the")]
    met, never = 0, [*tokenizer.forbidden_ids(), *range(
        tokenizer.vocab_size, small_guard.model.cfg.text.vocab_size)]
    assert tokenizer.image_pad_id in never
    for _ in range(2):
        batch = next(bundle.data_iterator)
        samples = stage._roll(bundle, batch, 0).samples
        mask = np.arange(TOKENS) < samples.length[..., None]
        assert not np.isin(samples.tokens[mask], never).any()
        for row, n, ended in zip(samples.tokens.reshape(-1, TOKENS), samples.length.ravel(),
                                 samples.ended.ravel(), strict=True):
            at_stop = any(row[:n][-len(stop):].tolist() == stop for stop in stops)
            assert ended == (at_stop or row[n - 1] == tokenizer.end_id)
            met += at_stop
        bundle, metrics, _ = stage.step(bundle, batch)
        value = {name: float(total) / float(count) for name, (total, count) in metrics.items()}
        assert value[GAP] <= value[GAP + "_max"] < 2e-5, "not the gap that truncation makes"
        kept = np.exp(samples.model_logp - samples.logp)[mask].mean()
        assert 0.2 < kept < 0.95 and value["rollout/kept_mass"] == pytest.approx(kept, rel=1e-5)
        assert value["grpo/correction"] == pytest.approx(kept, rel=1e-4)
    assert [jit.num_traces for jit in stage.jits] == [1, 1]


def test_answers_that_are_empty_or_have_no_end(start, small_guard, monkeypatch):
    """Both are counted and judged as malformed, and the update stays finite."""
    tokenizer, (stage, bundle) = small_guard.model.batcher.tokenizer, start()
    tokens = np.full((4, GROUP, TOKENS), tokenizer.untrusted("a")[0], np.int32)
    length = np.full((4, GROUP), TOKENS, np.int32)
    ended = np.zeros((4, GROUP), bool)
    tokens[0], length[0], ended[0] = tokenizer.end_id, 1, True      # empty, and says so
    length[1], ended[1] = 0, True                                   # not even an end
    zeros = np.zeros((4, GROUP, TOKENS), np.float32)
    samples = Samples(tokens, length, zeros, zeros, ended)
    assert decode_answers(samples, tokenizer) == [""] * 4 * GROUP
    monkeypatch.setattr(stage._sampler, "sample", lambda *args: (samples, None))
    monkeypatch.setattr(stage._gap, "_limit", np.inf)       # these were not sampled
    bundle, metrics, _ = stage.step(bundle, next(bundle.data_iterator))
    assert metrics["rollout/truncated"] == (2.0 * GROUP, 4.0 * GROUP)
    assert metrics["rollout/invalid"] == (4.0 * GROUP, 4.0 * GROUP)
    assert float(metrics["skipped"][0]) == 0 and np.isfinite(float(metrics["loss"][0]))


def test_a_gap_stops_the_run_at_its_last_step_too(start):
    stage, bundle = start(logp_gap_limit=1e-12)
    bundle, metrics, _ = stage.step(bundle, next(bundle.data_iterator))
    assert metrics[GAP][0] > 0, "nothing is exact here"
    with pytest.raises(LogpGapError, match=r"stage 'grpo', step 1: .* rl\.logp_gap_limit=1e-12"):
        stage.step(bundle.replace(clock=bundle.clock.tick(1.0)), next(bundle.data_iterator))


def pairs(mean, count=4):
    return {GAP: (jnp.float32(mean * count), jnp.float32(count))}


def test_the_guard_looks_one_step_behind_and_at_the_last():
    guard = LogpGapGuard("grpo", 0.0, "bfloat16")
    guard.observe(1, pairs(0.019), last=False)
    guard.observe(2, pairs(0.021), last=False)
    with pytest.raises(LogpGapError, match="step 2.* by 0.021 nats in the mean.*=0.02; giving up"):
        guard.observe(3, pairs(0.0), last=False)
    guard = LogpGapGuard("grpo", 0.0, "float32")
    guard.observe(1, pairs(1.9e-5), last=False)
    with pytest.raises(LogpGapError, match="step 2.* attention=xla.*raise the limit"):
        guard.observe(2, pairs(2.1e-5), last=True)


def test_the_guard_leaves_skipped_and_empty_steps_to_others():
    guard = LogpGapGuard("grpo", 1e-3, "float32")
    guard.observe(1, pairs(np.nan), last=False)
    guard.observe(2, pairs(0.0, count=0), last=False)
    guard.observe(3, pairs(0.9e-3), last=True)
