"""Calling rewards: every way to fail has a name and a row, and TRL's functions fit."""

import numpy as np
import pytest

from guardjax.rewards.reward import RewardError, call_reward, per_row


def returning(value, applies=None):
    def reward(examples, completions):
        return value, np.ones(len(completions), bool) if applies is None else applies

    return reward


def call(reward, make, num=3):
    return call_reward("mine", reward, [make(example_id=f"e{i}") for i in range(num)], ["x"] * num)


def test_values_pass_through(make):
    value, applies = call(returning(np.array([1, 2, 3], np.int32)), make)
    assert value.dtype == np.float64 and applies.dtype == bool
    np.testing.assert_array_equal(value, [1, 2, 3])
    value, _ = call(returning([0.5, True, 2]), make)
    np.testing.assert_array_equal(value, [0.5, 1, 2])


@pytest.mark.parametrize("bad", [None, np.nan, np.inf, -np.inf, "high", [1]])
def test_a_bad_value_names_reward_and_row(make, bad):
    value = np.empty(3, object)
    value[:] = [0.0, 1.0, bad]
    with pytest.raises(RewardError, match=r"reward 'mine', row 2: .*example 'e2'") as caught:
        call(returning(value), make)
    assert caught.value.name == "mine" and caught.value.row == 2


def test_values_that_do_not_apply_are_ignored(make):
    value, applies = call(
        returning(np.array([1.0, np.nan, 3.0]), np.array([True, False, True])), make
    )
    np.testing.assert_array_equal(value, [1, 0, 3])
    np.testing.assert_array_equal(applies, [True, False, True])


@pytest.mark.parametrize(
    "reward, problem",
    [
        (returning(np.ones(2)), r"wanted 3 values, got shape \(2,\)"),
        (returning(np.ones((3, 1))), r"got shape \(3, 1\)"),
        (returning(1.0), r"got shape \(\)"),
        (returning([[1], [2, 3], [4]]), "wanted 3 values"),
        (returning(np.ones(3), np.ones(2, bool)), "applies must be 3 bools"),
        (returning(np.ones(3), np.ones(3)), "applies must be 3 bools, not float64"),
        (lambda examples, completions: np.ones(3), r"returned ndarray, not \(value, applies\)"),
        (lambda examples, completions: None, "returned NoneType"),
    ],
)
def test_a_wrong_shape_is_named(make, reward, problem):
    with pytest.raises(RewardError, match=problem) as caught:
        call(reward, make)
    assert caught.value.row is None and "'mine'" in str(caught.value)


def test_a_raising_reward_is_named_with_its_row_and_cause(make):
    @per_row
    def fussy(example, completion):
        if example.example_id == "e1":
            raise KeyError("colour")
        return 1.0

    with pytest.raises(RewardError, match=r"'mine', row 1: raised KeyError: 'colour'") as caught:
        call(fussy, make)
    assert isinstance(caught.value.__cause__, KeyError) and caught.value.row == 1


def test_a_reward_that_raises_on_the_batch_only_has_no_row(make):
    def crowded(examples, completions):
        if len(examples) > 1:
            raise RuntimeError("too many")
        return np.ones(1), np.ones(1, bool)

    with pytest.raises(RewardError, match="raised RuntimeError: too many") as caught:
        call(crowded, make)
    assert caught.value.row is None


def test_examples_and_completions_must_match(make):
    with pytest.raises(ValueError, match="1 examples for 2 completions"):
        call_reward("mine", returning(np.ones(2)), [make()], ["a", "b"])


def test_nothing_to_score(make):
    value, applies = call_reward("mine", returning(np.zeros(0)), [], [])
    assert value.shape == applies.shape == (0,)
