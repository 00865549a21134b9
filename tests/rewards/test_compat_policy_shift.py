"""PolicyShiftGuard's pair reward: its numbers, case by case, and our reading of them."""

import numpy as np
import pytest

from guardjax.rewards.compat_policy_shift import shift_contrast, shift_verdict
from guardjax.rewards.named import reward_by_name
from guardjax.rewards.reward import call_reward

SAFE, BLOCK, OTHER_RULE, BROKEN = (
    "<answer>safe</answer>", "<answer>unsafe: R2</answer>", "<answer>unsafe: R1</answer>", "safe.")


def two(make):
    """One picture that a policy passes and another blocks (rule R2)."""
    return (make("safe", image_id="i", policy_id="p", example_id="a"),
            make("unsafe", image_id="i", policy_id="q", example_id="b"))


@pytest.mark.parametrize("label, text, expected", [
    ("safe", SAFE, 1.2), ("safe", BLOCK, -1.3), ("safe", BROKEN, -2.0), ("safe", "", -2.0),
    ("unsafe", BLOCK, 1.7), ("unsafe", OTHER_RULE, -0.3), ("unsafe", SAFE, -1.3),
    ("unsafe", BROKEN, -2.0), ("unsafe", "<answer>unsafe</answer>", -2.0),
    ("unsafe", "<answer>unsafe: R9</answer>", -2.0),
    ("unsafe", "<answer>unsafe: R2, R1</answer>", -0.3),
])
def test_an_answer_alone(make, label, text, expected):
    value, applies = call_reward("verdict", shift_verdict, [make(label)], [text])
    assert applies.all()
    np.testing.assert_allclose(value, [expected])


def test_any_broken_rules_are_the_category(make):
    example = make("unsafe", rule_ids=("R2", "R3"))
    texts = [BLOCK, "<answer>unsafe: R3, R2</answer>", "<answer>unsafe: R3, R4</answer>"]
    value, _ = call_reward("verdict", shift_verdict, [example] * 3, texts)
    np.testing.assert_allclose(value, [1.7, 1.7, -0.3])


@pytest.mark.parametrize("passed, blocked, expected", [
    (SAFE, BLOCK, (0.7, 0.9)), (SAFE, OTHER_RULE, (0.7, 0.9)), (SAFE, SAFE, (-0.8, -0.8)),
    (BLOCK, BLOCK, (-0.8, -0.8)), (BLOCK, SAFE, (-0.8, -0.8)),
    (SAFE, BROKEN, (0.0, None)), (BROKEN, BLOCK, (None, 0.0)), (BROKEN, BROKEN, (None, None)),
])
def test_an_answer_beside_its_counterparts(make, passed, blocked, expected):
    value, applies = call_reward("contrast", shift_contrast, two(make), [passed, blocked])
    assert list(applies) == [want is not None for want in expected]
    np.testing.assert_allclose(value, [want or 0.0 for want in expected])


def test_the_mean_is_over_answers_and_counterparts_weigh_equally(make):
    safe, first = two(make)
    second = make("unsafe", image_id="i", policy_id="r", example_id="c")
    value, _ = call_reward("contrast", shift_contrast, [safe, *[first] * 4, second],
                           [SAFE, BLOCK, SAFE, SAFE, BROKEN, BLOCK])
    of_first = (0.7 - 0.8 - 0.8 + 0) / 4
    np.testing.assert_allclose(value[0], (of_first + 0.7) / 2)
    np.testing.assert_allclose(value[1:], [0.9, -0.8, -0.8, 0, 0.9])


def test_an_edited_pair_is_a_contrast_and_strangers_are_none(make):
    before = make("unsafe", image_id="i", policy_id="p", pair_id="e", example_id="a")
    after = make("safe", image_id="j", policy_id="p", pair_id="e", example_id="b")
    stranger = make("safe", image_id="k", policy_id="q", example_id="c")
    caption = make(None, rule_ids=(), image_id="i", policy_id="q", example_id="d")
    value, applies = call_reward(
        "contrast", shift_contrast, [before, after, stranger, caption], [BLOCK, SAFE, SAFE, SAFE])
    assert list(applies) == [True, True, False, False]
    np.testing.assert_allclose(value, [0.9, 0.7, 0, 0])
    assert not call_reward("verdict", shift_verdict, [caption], [SAFE])[1].any()


def test_it_has_a_name_and_a_constant_verdict_earns_less_than_the_truth(make):
    reward, pair = reward_by_name("policy_shift"), two(make)
    truth = reward.score(pair, [SAFE, BLOCK])
    np.testing.assert_allclose(truth.value, [1.9, 2.6])
    assert truth.applies.all() and set(truth.parts) == {"verdict", "contrast"}
    for constant in (SAFE, BLOCK):
        assert reward.score(pair, [constant] * 2).value.sum() < 0


def test_a_wrong_verdict_earns_less_than_none(make):
    """The trap that the docstring names; `verdict_reward` has it the other way round."""
    pair, reward = two(make), reward_by_name("policy_shift")
    for said in (SAFE, BLOCK):      # the counterpart, wrong or right
        np.testing.assert_allclose(reward.score(pair, [BLOCK, said]).value[0], -2.1)
        np.testing.assert_allclose(reward.score(pair, [BROKEN, said]).value[0], -2.0)
    gated = reward_by_name("gated").score(pair[:1] * 2, [BLOCK, BROKEN]).value
    assert gated[0] > gated[1]


def test_another_label_is_refused(make):
    for part in (shift_verdict, shift_contrast):
        with pytest.raises(ValueError, match="not one of safe, unsafe"):
            part([make("fine", rule_ids=()), make("safe")], [SAFE, SAFE])
