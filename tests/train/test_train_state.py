"""Splitting, merging, optimiser and the jitted step."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from guardjax.train.config import OptimConfig
from guardjax.train.optim import decay_mask, make_optimizer, make_schedule
from guardjax.train.state import Bundle, init_state, merge_params, partition_params, split_params
from guardjax.train.steps import make_train_step


def test_split_and_merge_are_inverse(toy):
    params = {"visual": {"merger": {"kernel": 1}, "norm": {"scale": 2}}, "model": {"kernel": 3}}
    trained, frozen = split_params(params, ("visual/merger",))
    assert trained == {"visual": {"norm": {"scale": 2}}, "model": {"kernel": 3}}
    assert frozen == {"visual": {"merger": {"kernel": 1}}}
    assert merge_params(trained, frozen) == params
    adapters, rest = partition_params(params, lambda path: path.endswith("scale"))
    assert adapters == {"visual": {"norm": {"scale": 2}}} and "norm" not in rest["visual"]
    state = init_state({"model": {"kernel": jnp.ones(2)}}, optax.sgd(1.0), jax.random.key(0))
    bundle = Bundle(frozen={"visual": {}}, state=state)
    assert set(bundle.params) == {"visual", "model"} and bundle.finished().state is None


def test_split_and_merge_refuse_nonsense():
    params = {"visual": {"kernel": 1}, "model": {"kernel": 2}}
    with pytest.raises(ValueError, match=r"'visul'\. Did you mean 'visual'\? Valid: model, visual"):
        split_params(params, ("visul",))
    with pytest.raises(ValueError, match="no parameter to train"):
        split_params(params, ("visual", "model"))
    with pytest.raises(ValueError, match="both trained and frozen"):
        merge_params(params, params)


def test_decay_spares_biases_norms_and_embeddings():
    kernel, stacked = jnp.ones((3, 4)), jnp.ones((2, 4))
    params = {"layers": {"q_proj": {"kernel": kernel, "bias": stacked},
                         "input_layernorm": {"scale": stacked}},
              "embed_tokens": {"embedding": kernel}, "patch_embed": {"kernel": kernel},
              "ln_q": {"weight": stacked}, "gate": jnp.ones(4)}
    mask = decay_mask(params)
    assert mask["layers"] == {"q_proj": {"kernel": True, "bias": False},
                              "input_layernorm": {"scale": False}}
    assert not mask["embed_tokens"]["embedding"] and mask["patch_embed"]["kernel"]
    assert not mask["ln_q"]["weight"] and not mask["gate"]


@pytest.mark.parametrize("schedule, end", [("cosine", 0.0), ("linear", 0.0), ("constant", 0.1)])
def test_schedules_warm_up_and_end(schedule, end):
    rate = make_schedule(OptimConfig(lr=0.1, schedule=schedule, warmup_steps=4), 20)
    np.testing.assert_allclose([rate(i) for i in range(5)], [0.025, 0.05, 0.075, 0.1, 0.1],
                               rtol=1e-6)
    np.testing.assert_allclose(rate(20), end, atol=1e-7)
    assert make_schedule(OptimConfig(lr=0.1, schedule=schedule), 20)(0) == pytest.approx(0.1)


def test_a_warm_up_longer_than_the_stage_is_refused():
    with pytest.raises(ValueError, match="warmup_steps=5 is more than the stage's 4 steps"):
        make_optimizer(OptimConfig(warmup_steps=5), 4)


def batch_of(toy, value=1.0, size=4):
    return {"x": np.full((size, 4), value, np.float32), "y": np.ones((size, 2), np.float32)}


def make_toy_step(toy, loss=None, tx=None):
    tx = tx or make_optimizer(OptimConfig(lr=0.1), 10)
    trained, frozen = split_params(toy.params(), ("visual",))
    return (make_train_step(loss or toy.loss, tx), init_state(trained, tx, jax.random.key(0)),
            frozen)


def test_a_step_learns_donates_its_state_and_compiles_once(toy):
    step, state, frozen = make_toy_step(toy)
    losses, first = [], state
    for _ in range(4):
        state, metrics = step(state, frozen, batch_of(toy))
        losses.append(float(metrics["loss"][0] / metrics["loss"][1]))
    assert losses[-1] < losses[0] and step.num_traces == 1
    assert first.params["model"]["kernel"].is_deleted()
    assert not frozen["visual"]["kernel"].is_deleted()
    assert int(state.step) == int(state.updates) == 4 and int(state.skipped) == 0
    step(state, frozen, batch_of(toy, size=8))
    assert step.num_traces == 2


def test_the_loss_is_the_sum_over_the_count(toy):
    step, state, frozen = make_toy_step(
        toy, lambda params, frozen, batch, key: (jnp.sum(params["model"]["bias"] + 3.0), 4, {}),
        optax.sgd(1.0))
    state, metrics = step(state, frozen, batch_of(toy))
    assert float(metrics["loss"][0]) == 6.0 and float(metrics["loss"][1]) == 4.0
    np.testing.assert_allclose(state.params["model"]["bias"], [-0.25, -0.25])


def test_non_finite_steps_leave_everything_as_it_was_and_are_counted(toy):
    step, state, frozen = make_toy_step(toy)
    state, _ = step(state, frozen, batch_of(toy))
    before = jax.device_get((state.params, state.opt_state))
    for streak in (1, 2):
        state, metrics = step(state, frozen, batch_of(toy, np.nan))
        assert int(state.bad_streak) == int(state.skipped) == streak
        assert metrics["loss"] == (0.0, 0.0) and metrics["skipped"][0] == 1.0
    jax.tree.map(np.testing.assert_array_equal, before,
                 jax.device_get((state.params, state.opt_state)))
    state, _ = step(state, frozen, batch_of(toy))
    assert (int(state.step), int(state.updates), int(state.skipped), int(state.bad_streak)) == (
        4, 2, 2, 0)


def test_a_finite_loss_with_an_infinite_gradient_is_skipped(toy):
    def loss(params, frozen, batch, key):
        return jnp.sum(jnp.sqrt(params["model"]["bias"])), 1, {}     # gradient at 0 is infinite

    step, state, frozen = make_toy_step(toy, loss)
    state, metrics = step(state, frozen, batch_of(toy))
    assert int(state.skipped) == 1 and np.isfinite(state.params["model"]["bias"]).all()


def test_an_empty_batch_changes_nothing_and_is_no_fault(toy):
    def loss(params, frozen, batch, key):
        return jnp.sum(params["model"]["bias"]) * 0.0, 0, {}

    step, state, frozen = make_toy_step(toy, loss)
    state, metrics = step(state, frozen, batch_of(toy))
    assert (int(state.step), int(state.updates), int(state.skipped)) == (1, 0, 0)
    assert metrics["empty"][0] == 1.0 and metrics["loss"][1] == 0.0
