"""Group advantages against float64 NumPy, and what equal or missing rewards give."""

import jax
import numpy as np
import pytest

from guardjax.rl import advantages
from guardjax.rl.advantages import STD_FLOOR

# One compilation instead of one an operation.
group_advantages = jax.jit(advantages.group_advantages, static_argnames=("scale", "baseline"))
zero_variance = jax.jit(advantages.zero_variance)

SCALES = ["none", "group_std", "batch_std", "centred_std"]


def oracle(rewards, scale, baseline):
    rewards = rewards.astype(np.float64)
    group = rewards.shape[1]
    out = np.empty_like(rewards)
    for b, row in enumerate(rewards):
        for g in range(group):
            base = row.mean() if baseline == "mean" else np.delete(row, g).mean()
            out[b, g] = row[g] - base
        if scale == "group_std":
            out[b] /= row.std(ddof=1) + STD_FLOOR
    divisor = {"batch_std": rewards.std(ddof=1), "centred_std": np.sqrt((out**2).mean())}
    return out / (divisor[scale] + STD_FLOOR) if scale in divisor else out


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("baseline", ["mean", "leave_one_out"])
def test_agrees_with_numpy(scale, baseline):
    rewards = np.random.default_rng(0).normal(size=(64, 8)).astype(np.float32)
    found = group_advantages(rewards, scale=scale, baseline=baseline)
    want = oracle(rewards, scale, baseline)
    np.testing.assert_allclose(found, want, rtol=1e-6, atol=1e-6 * np.abs(want).max())


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("value", [0.0, 0.1, 1 / 3, 1e6])
def test_equal_rewards_give_exactly_zero(scale, value):
    rewards = np.full((2, 7), value, np.float32)
    rewards[1] = np.arange(7)
    found = np.asarray(group_advantages(rewards, scale=scale))
    assert (found[0] == 0).all() and (found[1] != 0).sum() >= 6
    np.testing.assert_array_equal(zero_variance(rewards), [True, False])


def test_a_batch_of_equal_groups_is_zero_and_finite():
    rewards = np.full((3, 4), 0.1, np.float32)
    for scale in SCALES:
        assert (np.asarray(group_advantages(rewards, scale=scale)) == 0).all()


def test_group_of_one_is_zero():
    found = group_advantages(np.ones((3, 1), np.float32), scale="group_std",
                             baseline="leave_one_out")
    assert (np.asarray(found) == 0).all()


def test_group_std_cancels_a_shared_reward_gap():
    """core_papers 1.3, analysis 1: 2.0 against 1.0 gives the same advantages as 1.7 against 1.0."""
    hit = np.array([[1, 0, 0, 1, 0, 0, 0, 0]], np.float32)
    large = group_advantages(1 + hit, scale="group_std")
    small = group_advantages(1 + 0.7 * hit, scale="group_std")
    np.testing.assert_allclose(large, small, rtol=1e-5)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("baseline", ["mean", "leave_one_out"])
def test_invalid_answers_are_as_if_absent(scale, baseline):
    rng = np.random.default_rng(1)
    rewards = rng.normal(size=(5, 4)).astype(np.float32)
    wide = np.concatenate([rewards, np.full((5, 2), np.nan, np.float32)], axis=1)
    valid = np.arange(6) < np.full((5, 1), 4)
    found = np.asarray(group_advantages(wide, scale=scale, baseline=baseline, valid=valid))
    want = group_advantages(rewards, scale=scale, baseline=baseline)
    np.testing.assert_allclose(found[:, :4], want, rtol=1e-5, atol=1e-6)
    assert (found[:, 4:] == 0).all()


def test_groups_with_fewer_than_two_valid_answers_have_no_signal():
    rewards = np.array([[1.0, 0.0], [1.0, 0.0]], np.float32)
    valid = np.array([[True, False], [False, False]])
    assert zero_variance(rewards, valid).all()
    assert (np.asarray(group_advantages(rewards, scale="group_std", valid=valid)) == 0).all()


def test_nan_is_not_hidden():
    rewards = np.array([[np.nan, 1.0], [0.0, 1.0]], np.float32)
    found = np.asarray(group_advantages(rewards))
    assert np.isnan(found[0]).all() and np.isfinite(found[1]).all()
    np.testing.assert_array_equal(zero_variance(rewards), [False, False])


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="scale 'std'"):
        group_advantages(np.ones((1, 2)), scale="std")
    with pytest.raises(ValueError, match="baseline 'median'"):
        group_advantages(np.ones((1, 2)), baseline="median")
