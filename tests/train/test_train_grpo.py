"""The stage `grpo` with dynamic sampling and with adapters, on a small guard.

Dynamic sampling: mixed prompts are kept, rounds are bounded, and a resume draws the same.
"""

import dataclasses
import types

import jax
import numpy as np
import pytest

from guardjax.rewards.compose import Composition, Part
from guardjax.rewards.named import COMPOSITIONS
from guardjax.train.config import ConfigError, LoraConfig, resolve
from guardjax.train.guard import NonFiniteError
from guardjax.train.loop import DataEndedError
from guardjax.train.metrics import read_metrics
from guardjax.train.stages import dynamic
from guardjax.train.stages.grpo import GRPOStage
from guardjax.train.state import Bundle

GROUP, ROUNDS = 4, 3


def marked_reward(examples, completions):
    """Every second answer of a prompt is better, but for prompts marked as flat."""
    value = [0.5 if e.facts["flat"] else float(i % 2) for i, e in enumerate(examples)]
    return np.asarray(value), np.ones(len(completions), bool)


@pytest.fixture(scope="module")
def source(small_guard):
    """Batches 1 and 3 show pictures, so that rounds differ in kind and in length."""
    return small_guard.source(num=2 * ROUNDS, pictures=(1, 3))


@pytest.fixture(scope="module")
def stage(small_guard, source, quick_compilation):
    """Two steps with adapters; compiled once, as all that changes lies in bundle and source."""
    COMPOSITIONS["marked"] = Composition((Part("marked", marked_reward),))
    config = small_guard.config("grpo", 2, lora=LoraConfig(rank=2, alpha=4.0))
    config = dataclasses.replace(config, rl=dataclasses.replace(
        config.rl, group_size=GROUP, max_tokens=3, reward="marked", kl_coef=1.0,
        dynamic_sampling=True, dynamic_rounds=ROUNDS))
    yield GRPOStage(config, small_guard.model, source, 3)
    del COMPOSITIONS["marked"]


@pytest.fixture
def start(small_guard, stage, source):
    """Returns the bundle at the stage's start, once it was said which prompts are flat."""
    def start(flat):
        source.flat = flat
        return stage.init(Bundle(frozen=small_guard.params))
    return start


def same(one, other):
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(one), jax.device_get(other))


def test_mixed_prompts_are_chosen_first_and_the_last_flat_ones_fill():
    flat = np.array([1, 0, 1, 1, 0, 1], bool)
    assert dynamic.choose_prompts(flat, 3).tolist() == [1, 4, 5]
    assert dynamic.choose_prompts(flat, 4).tolist() == [1, 4, 3, 5]
    assert dynamic.choose_prompts(~flat, 3).tolist() == [0, 2, 3]
    assert dynamic.choose_prompts(np.ones(3, bool), 2).tolist() == [1, 2]


def test_a_step_draws_until_its_prompts_are_mixed_and_keeps_what_it_sampled(
        start, stage, small_guard, monkeypatch):
    """Two of four prompts are flat; every second round brings pictures."""
    updates, gather = [], dynamic.gather_update

    def noted(drawn, batcher, placement=None):
        updates.append((drawn, gather(drawn, batcher, placement)))
        return updates[-1][1]

    monkeypatch.setattr(dynamic, "gather_update", noted)
    bundle = start(lambda index, row: row < 2)
    for _ in range(2):
        bundle, metrics, shown = stage.step(bundle, next(bundle.data_iterator))
        assert metrics["dynamic/rounds"] == (2.0, 1.0)
        assert metrics["dynamic/drawn"] == (8.0, 1.0) and metrics["dynamic/kept"] == (4.0, 8.0)
        assert float(metrics["grpo/zero_variance"][0]) == 0.0
        assert metrics["reward/total"] == (8.0 * GROUP / 2, 8.0 * GROUP)    # of all prompts drawn
        assert metrics["rollout/logp_gap"][0] / metrics["rollout/logp_gap"][1] < 2e-5
        assert len(shown.table()) == 4
    for drawn, arrays in updates:
        assert (np.ptp(arrays["rewards"], axis=1) == 1.0).all()
        assert arrays["tokens"].shape == (4, GROUP, 3) and len(drawn) == 2
        first, second = drawn
        for name in first.answers():                # as they were rolled out, not sampled again
            np.testing.assert_array_equal(arrays[name][:2], first.answers()[name][2:])
            np.testing.assert_array_equal(arrays[name][2:], second.answers()[name][2:])
        same(arrays["prompts"], small_guard.model.batcher.prompts(
            [*first.examples[2:], *second.examples[2:]]))
    assert next(bundle.data_iterator).examples[0].example_id == "4/0", "four batches were drawn"


def test_adapters_alone_are_trained_and_there_is_no_second_model(start, stage):
    bundle = start(lambda index, row: row < 2)
    assert bundle.ref_params == {} and set(bundle.state.params) == {"model"}
    before = jax.device_get((bundle.frozen, bundle.state.params))
    divergence = []
    for _ in range(2):
        bundle, metrics, _ = stage.step(bundle, next(bundle.data_iterator))
        divergence.append(float(metrics["grpo/kl"][0] / metrics["grpo/kl"][1]))
    assert divergence[0] < 1e-9 < divergence[1], "the reference is the model at the start"
    same(bundle.frozen, before[0])
    moved = jax.tree.map(lambda new, old: not np.array_equal(new, old),
                         jax.device_get(bundle.state.params), before[1])
    assert all(jax.tree.leaves(moved)) and int(bundle.state.updates) == 2


def test_rounds_of_one_step_are_sampled_independently(start, stage):
    bundle = start(lambda index, row: True)
    batch = next(bundle.data_iterator)
    first, again, other = (stage._roll(bundle, batch, n).samples.tokens for n in (0, 0, 4))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_rounds_are_bounded_and_the_batch_is_filled(start, stage):
    """Only one prompt of every batch is mixed."""
    bundle, drawn = start(lambda index, row: row > 0), 0.0
    for _ in range(2):
        bundle, metrics, _ = stage.step(bundle, next(bundle.data_iterator))
        assert metrics["dynamic/rounds"] == (float(ROUNDS), 1.0)
        assert metrics["dynamic/kept"] == (3.0, 12.0)
        assert float(metrics["grpo/zero_variance"][0]) == 1.0
        drawn += metrics["dynamic/drawn"][0]
    assert drawn == 4 * len(stage._source)
    with pytest.raises(StopIteration):
        next(bundle.data_iterator)


def test_with_nothing_flat_one_round_is_enough(start, stage):
    bundle = start(lambda index, row: False)
    next(bundle.data_iterator)
    _, metrics, _ = stage.step(bundle, next(bundle.data_iterator))
    assert metrics["dynamic/rounds"] == (1.0, 1.0) and metrics["dynamic/kept"] == (4.0, 4.0)


def test_a_killed_run_draws_the_same_prompts_again(stage, source, small_guard, tmp_path):
    source.flat = lambda index, row: row < (2 if index < 2 else 3)
    straight = small_guard.run([stage], tmp_path / "straight")
    with pytest.raises(KeyError):
        small_guard.run([small_guard.interrupted(stage, 1, KeyError)], tmp_path / "killed", 1)
    resumed = small_guard.run([stage], tmp_path / "killed", 1)
    same(resumed.params, straight.params)
    lines = [read_metrics(tmp_path / name / "metrics.jsonl") for name in ("straight", "killed")]
    assert lines[0] == lines[1] and [line["dynamic/drawn"] for line in lines[0]] == [8.0, 12.0]


def test_shapes_of_several_rounds_compile_no_more_than_those_of_one(stage):
    """Words and pictures, and updates with pictures only: the tests above take no others."""
    assert [jit.num_traces for jit in stage.jits] == [2, 1]


def test_a_reward_that_is_not_finite_skips_the_step_and_is_counted(
        start, stage, small_guard, source, tmp_path, monkeypatch, caplog):
    """The parameters stay, the next step learns again; too many in a row end the run."""
    broken = [True, False]

    def reward(examples, completions):
        value, applies = marked_reward(examples, completions)
        value[3] = np.nan if broken[0] else value[3]
        return value, applies

    monkeypatch.setattr(stage, "_reward", Composition((Part("mine", reward),)))
    bundle = start(lambda index, row: False)
    before = jax.device_get(bundle.state.params)
    next(bundle.data_iterator)      # of words; the update is compiled for pictures
    bundle, metrics, _ = stage.step(bundle, next(bundle.data_iterator))
    same(bundle.state.params, before)
    assert float(metrics["skipped"][0]) == 1.0 and int(bundle.state.bad_streak) == 1
    assert metrics["reward/nonfinite"] == (1.0, 1.0)
    assert metrics["reward/total"] == (0.0, 0) and metrics["reward/mine"] == (0.0, 0)
    assert "step 1 is skipped: reward 'mine', row 3: value" in caplog.text
    broken[0] = False
    bundle, metrics, _ = stage.step(bundle, next(bundle.data_iterator))
    assert int(bundle.state.updates) == 1 and int(bundle.state.bad_streak) == 0
    assert metrics["reward/nonfinite"] == (0.0, 1.0)
    broken[0] = True
    with pytest.raises(NonFiniteError, match="loss, gradient or reward that was not finite"):
        small_guard.run([stage], tmp_path, max_bad=1)
    assert (tmp_path / "nonfinite").is_dir()


def test_data_that_may_not_last_is_refused(small_guard, stage):
    config = small_guard.config("grpo", 2)
    config = dataclasses.replace(config, rl=dataclasses.replace(
        config.rl, dynamic_sampling=True, dynamic_rounds=3))
    with pytest.raises(ValueError, match="2 steps of up to 3 rounds may draw 6 batches, and the "
                                         "data has 5: give it 6"):
        GRPOStage(config, small_guard.model, small_guard.source(num=5), 0)
    flat = types.SimpleNamespace(flat=np.ones(2, bool), examples=(None, None))
    with pytest.raises(DataEndedError, match="ended in round 2"):
        dynamic.draw_rounds(lambda *_: flat, flat, iter(()), 3)


def test_other_stages_refuse_it():
    with pytest.raises(ConfigError, match="dynamic_sampling=True is not for kind 'sft'"):
        resolve({"name": "run", "stages": [
            {"kind": "sft", "steps": 1, "rl": {"dynamic_sampling": True}}]})
