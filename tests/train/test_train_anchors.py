"""Prompts without a label in the stage `grpo`: held to the reference, rewarded for nothing."""

import dataclasses

import jax
import numpy as np
import pytest

from guardjax.rewards import COMPOSITIONS, Composition, Part, per_row
from guardjax.train.config import ConfigError, resolve
from guardjax.train.stages.grpo import GRPOStage
from guardjax.train.state import Bundle

STEPS = 8


@dataclasses.dataclass
class Unlabelled:
    """A source without labels in batches `anchors`."""

    source: object
    anchors: tuple[int, ...]

    def __len__(self):
        return len(self.source)

    def __getitem__(self, index):
        batch = self.source[index]
        if int(index) not in self.anchors:
            return batch
        return dataclasses.replace(batch, examples=tuple(
            dataclasses.replace(e, kind="caption", label=None) for e in batch.examples))


@pytest.fixture(scope="module")
def begin(small_guard, quick_compilation):
    """Returns (stage, bundle at its start) of `STEPS` steps, batches `anchors` without labels."""
    def begin(anchor_coef, anchors=tuple(range(STEPS))):
        config = small_guard.config("grpo", STEPS)
        object.__setattr__(config, "optim", dataclasses.replace(config.optim, lr=3e-3))
        rl = dataclasses.replace(config.rl, group_size=4, max_tokens=3, anchor_coef=anchor_coef)
        # The schema refuses such a stage with `data` as it is; the source is our own here.
        object.__setattr__(config, "rl", rl)
        source = Unlabelled(small_guard.source(STEPS), anchors)
        stage = GRPOStage(config, small_guard.model, source, 3)
        return stage, stage.init(Bundle(frozen=small_guard.params))
    return begin


def step(stage, bundle):
    bundle, metrics, shown = stage.step(bundle, next(bundle.data_iterator))
    return bundle, {k: (float(a), float(n)) for k, (a, n) in metrics.items()}, shown


def test_at_the_reference_there_is_nothing_to_hold(begin):
    stage, bundle = begin(5.0)
    before = jax.device_get(bundle.state.params)
    bundle, metrics, shown = step(stage, bundle)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(bundle.state.params), before)
    assert metrics["grpo/anchor_kl"] == (0.0, metrics["rollout/tokens"][0])
    assert metrics["grpo/zero_variance"] == metrics["rollout/right"] == (0.0, 0.0)
    assert metrics["reward/total"] == (0.0, 0.0)
    assert "gold: unsafe" in shown.table()[1].verdict and shown.table()[1].reward == {}


@pytest.mark.slow
def test_a_reward_with_an_opinion_on_everything_is_not_asked_of_captions(begin, monkeypatch):
    """As functions in TRL's convention often are: no None, whatever the prompt."""
    longer = per_row(lambda example, completion: float(len(completion)))
    monkeypatch.setitem(COMPOSITIONS, "gated", Composition((Part("longer", longer),)))
    stage, bundle = begin(5.0)
    _, metrics, _ = step(stage, bundle)
    assert metrics["grpo/anchor_kl"] == (0.0, metrics["rollout/tokens"][0])
    assert metrics["reward/total"] == metrics["reward/longer"] == (0.0, 0.0)
    stage, bundle = begin(5.0, anchors=())
    _, metrics, _ = step(stage, bundle)
    assert metrics["grpo/anchor_kl"] == (0.0, 0.0) and metrics["reward/longer"][1] > 0


def test_a_reward_that_never_applies_makes_no_anchor(begin, monkeypatch):
    silent = per_row(lambda example, completion: None)
    monkeypatch.setitem(COMPOSITIONS, "gated", Composition((Part("silent", silent),)))
    stage, bundle = begin(5.0, anchors=())
    _, metrics, _ = step(stage, bundle)
    assert metrics["grpo/anchor_kl"] == (0.0, 0.0) and metrics["grpo/zero_variance"] == (0.0, 0.0)


def test_what_moved_away_is_drawn_back(begin):
    """Answers twice as sure as the reference's: the last norm's scale must shrink again."""
    stage, bundle = begin(5.0)
    scale = bundle.state.params["model"]["norm"]["scale"]
    moved = {**bundle.state.params, "model": {**bundle.state.params["model"],
                                              "norm": {"scale": 2.0 * scale}}}
    bundle = bundle.replace(state=bundle.state.replace(params=moved))
    for _ in range(STEPS):
        bundle, metrics, _ = step(stage, bundle)
        assert metrics["grpo/anchor_kl"][0] > 1e-3
    after = bundle.state.params["model"]["norm"]["scale"]
    assert np.mean(after) < np.mean(2.0 * scale) - 1e-3


@pytest.mark.slow
def test_labelled_prompts_do_not_feel_the_weight_of_anchors(begin):
    after = []
    for coef in (0.0, 5.0):
        stage, bundle = begin(coef, anchors=())
        bundle, metrics, _ = step(stage, bundle)
        assert metrics["rollout/right"][1] == 16.0
        after.append(jax.device_get(bundle.state.params))
    jax.tree.map(np.testing.assert_array_equal, *after)


@pytest.mark.parametrize("stage, message", [
    ({"kind": "grpo", "data": {"judge": 0.8, "caption": 0.2}},
     r"rl\.anchor_coef=0\.0 and data has caption: prompts without a label are held to the"),
    ({"kind": "grpo", "rl": {"anchor_coef": 1.0}},
     r"rl\.anchor_coef=1\.0 and data has labelled prompts only"),
    ({"kind": "grpo", "data": {"caption": 1.0}, "rl": {"anchor_coef": 1.0}},
     r"data has no labelled prompts \(judge, read\): nothing is rewarded"),
    ({"kind": "sft", "rl": {"anchor_coef": 1.0}},
     r"rl\.anchor_coef=1\.0 is not for kind 'sft', which does not read it"),
    ({"kind": "grpo", "rl": {"anchor_coef": -1.0}}, r"anchor_coef must be >= 0, got -1\.0"),
    ({"kind": "grpo", "data": {"judge": 0.8, "caption": 0.2},
      "rl": {"anchor_coef": 1.0, "dynamic_sampling": True}},
     r"never have any: leave caption out of data"),
])
def test_what_does_not_fit_together_is_refused(stage, message):
    with pytest.raises(ConfigError, match=message):
        resolve({"name": "run", "stages": [{"steps": 1, **stage}]})
