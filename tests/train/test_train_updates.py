"""Stage `grpo` with several updates a rollout, micro-batches and other choices of the loss."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from guardjax.rewards.compose import Composition, Part
from guardjax.rewards.named import COMPOSITIONS
from guardjax.train.config import ConfigError, resolve
from guardjax.train.parts import join_parts, split_parts
from guardjax.train.stages.grpo import GRPOStage
from guardjax.train.state import Bundle, init_state
from guardjax.train.steps import make_train_step

GROUP, STEPS = 4, 2


def uneven_reward(examples, completions):
    """Every answer of a group another one; the first prompt's are all equal."""
    value = [0.5 if i < GROUP else (i * i % 7) / 7 for i in range(len(examples))]
    return np.asarray(value), np.ones(len(completions), bool)


@pytest.fixture(scope="module")
def run(small_guard, quick_compilation):
    """Returns (parameters, metrics of each step, stage, first gradient) of a short run.

    The gradient is Adam's first moment after one step, which is linear in it. Parameters would not
    do: where a gradient is rounding alone, Adam moves by the whole rate in either direction.
    """
    COMPOSITIONS["uneven"] = Composition((Part("uneven", uneven_reward),))

    def run(**rl):
        config = small_guard.config("grpo", STEPS)
        start = {"group_size": GROUP, "max_tokens": 3, "reward": "uneven", "kl_coef": 0.5}
        config = dataclasses.replace(
            config, rl=type(config.rl)(**start | rl),
            optim=dataclasses.replace(config.optim, lr=1e-3))
        stage = GRPOStage(config, small_guard.model, small_guard.source(num=STEPS), 3)
        bundle = stage.init(Bundle(frozen=small_guard.params))
        logged, gradient = [], None
        for _ in range(STEPS):
            bundle, metrics, _ = stage.step(bundle, next(bundle.data_iterator))
            gradient = gradient or jax.device_get(optax.tree.get(bundle.state.opt_state, "mu"))
            logged.append({name: (float(total), float(count))
                           for name, (total, count) in metrics.items()})
        return jax.device_get(bundle.state.params), logged, stage, gradient

    yield run
    del COMPOSITIONS["uneven"]


def near(one, other):
    """Every gradient to 1e-5 of the largest entry of its parameter: sums in another order."""
    jax.tree.map(lambda a, b: np.testing.assert_allclose(
        a, b, rtol=0, atol=1e-5 * np.abs(b).max()), one, other)


def test_every_part_of_a_step_together(run):
    """Two passes of two minibatches in two parts, penalty and weights, one compilation each."""
    params, logged, stage, _ = run(preset="rloo", correction="sequence", overlong="shape", epochs=2,
                                minibatches=2, micro_batches=2)
    for step in logged:
        assert step["skipped"] == (0.0, 4.0) and step["lr"][1] == 4.0
        assert step["grpo/nonfinite_fraction"][0] == 0
        assert step["grpo/zero_variance"] == (2.0, 8.0)         # of each prompt, twice
        ratio = step["grpo/ratio"][0] / step["grpo/ratio"][1]
        assert ratio != 1.0 and abs(ratio - 1) < 0.2, "the first of four is on the policy"
        gap = step["rollout/logp_gap"][0] / step["rollout/logp_gap"][1]
        assert gap < 2e-5, "between sampler and old, not new, log-probabilities"
        largest, any_token = step["rollout/logp_gap_max"]
        assert any_token == 1.0 and gap <= largest < 2e-5, "the largest of all parts, not their sum"
        weight = step["grpo/correction"][0] / step["grpo/correction"][1]
        assert weight == pytest.approx(1.0, abs=1e-4)           # the sampler is the trainer
        assert -1 <= step["reward/overlong"][0] / step["reward/overlong"][1] <= 0
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))
    assert stage._num_updates == 4 * STEPS, "the schedule counts updates"
    assert [jit.num_traces for jit in stage.jits] == [1, 1, 1]


@pytest.mark.slow
def test_micro_batches_of_whole_groups_leave_the_update_as_it_is(run):
    whole, micro = run(), run(micro_batches=2)
    near(micro[3], whole[3])
    step, want = micro[1][0], whole[1][0]
    assert step.keys() == want.keys()
    gap, tokens = step.pop("rollout/logp_gap")
    assert gap / tokens < 2e-5, "rounding itself: what log-probabilities may differ by"
    assert step.pop("rollout/logp_gap_max")[0] < 2e-5
    for name in step:
        assert step[name] == pytest.approx(want[name], rel=1e-5, abs=1e-6), name


@pytest.mark.slow
def test_scaled_advantages_are_of_the_whole_batch_also_in_parts(run):
    choices = {"advantage_scale": "batch_std", "aggregate": "token_mean", "kl_in": "reward",
               "kl": "k1", "baseline": "leave_one_out"}
    near(run(micro_batches=4, **choices)[3], run(**choices)[3])


@pytest.mark.slow
def test_answers_that_were_cut_are_left_out(run):
    _, logged, _, _ = run(overlong="filter", max_tokens=2)
    for step in logged:
        cut, answers = step["rollout/truncated"]
        assert 0 < cut and step["grpo/loss"][1] == answers - cut


def test_gradients_of_parts_add_up_to_that_of_the_whole():
    """Uneven counts, a part without any, a metric: the update to 1e-6 in float32."""
    rng = np.random.default_rng(0)
    batch = {"x": rng.normal(size=(6, 3)).astype(np.float32),
             "mask": np.array([1, 0, 1, 1, 0, 1], bool)}        # part 1 of 3 has no row
    params = {"w": jnp.asarray(rng.normal(size=3), jnp.float32)}

    def loss(params, frozen, batch, key):
        error = jnp.where(batch["mask"], jnp.tanh(batch["x"] @ params["w"]) ** 2, 0)
        count = batch["mask"].sum()
        largest = (jnp.where(batch["mask"], batch["x"][:, 0] ** 2, 0).max(), batch["mask"].any())
        return error.sum(), count, {
            "rows": (count, jnp.float32(len(batch["mask"]))), "largest_max": largest}

    def step(num):
        state = init_state(params, optax.sgd(0.5), jax.random.key(0))
        return make_train_step(loss, optax.sgd(0.5), micro_batches=num)(state, {}, batch)

    (whole, want), (parts, found) = jax.device_get((step(1), step(3)))
    np.testing.assert_allclose(parts.params["w"], whole.params["w"], rtol=1e-6)
    assert found.keys() == want.keys() and found["rows"] == (4.0, 6.0)
    assert found["largest_max"] == (np.max(batch["x"][batch["mask"], 0] ** 2), 1.0)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), found, want)


def test_parts_hold_whole_rows_and_join_again():
    batch = {"a": jnp.arange(12).reshape(6, 2), "b": jnp.arange(6.0)}
    parts = split_parts(batch, 3)
    assert parts["a"].shape == (3, 2, 2) and parts["b"].tolist() == [[0, 3], [1, 4], [2, 5]]
    jax.tree.map(np.testing.assert_array_equal, join_parts(parts), batch)
    with pytest.raises(ValueError, match="6 prompts do not divide into 4 parts"):
        split_parts(batch, 4)


def test_parts_that_would_split_a_group_are_refused():
    stage = {"kind": "grpo", "steps": 1, "batch": 6, "rl": {"minibatches": 2, "micro_batches": 2}}
    with pytest.raises(ConfigError, match="batch=6 prompts do not divide into rl.minibatches=2 "
                                          "times rl.micro_batches=2 parts of whole groups"):
        resolve({"name": "run", "stages": [stage]})
