"""Compositions: the weighed sum, its parts by name, and how failures show."""

import numpy as np
import pytest

from guardjax.rewards.compose import Composition, Part
from guardjax.rewards.named import COMPOSITIONS, reward_by_name
from guardjax.rewards.reward import RewardError, call_reward, per_row


@per_row
def length(example, completion):
    return float(len(completion))


@per_row
def only_long(example, completion):
    return 1.0 if len(completion) > 2 else None


def test_weighs_and_logs_each_part(make):
    both = Composition((Part("length", length, 0.5), Part("long", only_long, 10.0)))
    scores = both.score([make()] * 3, ["a", "ab", "abc"])
    np.testing.assert_allclose(scores.value, [0.5, 1.0, 11.5])
    assert scores.applies.all()
    assert scores.sums() == {"total": (13.0, 3), "length": (6.0, 3), "long": (1.0, 1)}
    value, applies = call_reward("both", both, [make()] * 3, ["a", "ab", "abc"])
    np.testing.assert_allclose(value, scores.value)


def test_a_row_without_any_part_does_not_apply(make):
    scores = Composition((Part("long", only_long),)).score([make()] * 2, ["a", "abc"])
    np.testing.assert_array_equal(scores.applies, [False, True])
    assert scores.sums()["total"] == (1.0, 1)


def test_a_failing_part_is_named_also_when_nested(make):
    bad = per_row(lambda example, completion: float("nan"))
    nested = Composition((Part("outer", Composition((Part("inner", bad),))),))
    with pytest.raises(RewardError, match="reward 'inner', row 0"):
        nested.score([make()], ["a"])


def test_compositions_are_checked():
    for parts, problem in [
        ((), "at least one"),
        ((Part("a", length), Part("a", length)), "differ"),
        ((Part("total", length),), "total"),
        ((Part("a", length, float("nan")),), "weight"),
    ]:
        with pytest.raises(ValueError, match=problem):
            Composition(parts)


def test_named(make):
    for name in COMPOSITIONS:
        scores = reward_by_name(name).score([make(), make("safe")], ["<answer>safe</answer>"] * 2)
        assert np.isfinite(scores.value).all()
    with pytest.raises(ValueError, match="unknown reward 'gate'; known are gated"):
        reward_by_name("gate")


def test_a_right_contrast_is_worth_half_as_much_again(make):
    pair = [make("safe", image_id="i", policy_id="p"), make("unsafe", image_id="i", policy_id="q")]
    texts = ["<answer>safe</answer>", "<answer>unsafe: R2</answer>"]
    np.testing.assert_allclose(reward_by_name("gated_pair").score(pair, texts).value, [1.5, 1.5])
    np.testing.assert_allclose(
        reward_by_name("gated_pair").score(pair, texts[:1] * 2).value, [1.0, 0.1]
    )
