"""The default reward: its table, its refusals."""

import pytest

from guardjax.policies import Label, format_verdict
from guardjax.rewards.reward import RewardError, call_reward
from guardjax.rewards.verdict_reward import verdict_reward


def score(example, completion):
    value, applies = call_reward("verdict", verdict_reward, [example], [completion])
    return float(value[0]) if applies[0] else None


CASES = [
    ("safe", (), "<answer>safe</answer>", 1.0),
    ("safe", (), "<think>nothing banned</think><answer>safe</answer>", 1.0),
    ("safe", (), "<answer>unsafe: R1</answer>", 0.1),
    ("safe", (), "<answer>unsafe</answer>", 0.0),
    ("unsafe", ("R2",), "<answer>unsafe: R2</answer>", 1.0),
    ("unsafe", ("R2",), "<think>a beer</think><answer>unsafe: R2</answer>", 1.0),
    ("unsafe", ("R2",), "<answer>unsafe: R1</answer>", 0.7),
    ("unsafe", ("R2",), "<answer>unsafe: R1, R2</answer>", 0.85),
    ("unsafe", ("R2",), "<answer>unsafe: R1, R2, R3, R4</answer>", 0.775),
    ("unsafe", ("R2", "R4"), "<answer>unsafe: R4, R2</answer>", 1.0),
    ("unsafe", ("R2", "R4"), "<answer>unsafe: R2</answer>", 0.85),
    ("unsafe", ("R2", "R4"), "<answer>unsafe: R2, R3</answer>", 0.8),
    ("unsafe", ("R2",), "<answer>safe</answer>", 0.1),
    ("unsafe", ("R2",), "<answer>unsafe: R9</answer>", 0.0),
    ("unsafe", ("R2",), "", 0.0),
    ("unsafe", (), "<answer>unsafe: R3</answer>", 1.0),
]


@pytest.mark.parametrize("label, rule_ids, completion, want", CASES)
def test_table(make, label, rule_ids, completion, want):
    assert score(make(label, rule_ids), completion) == pytest.approx(want)


def test_hedging_over_all_rules_does_not_beat_a_guess(make):
    """Citing all of k rules earns what a blind guess at one earns on average."""
    for num in (2, 3, 5, 8):
        rules = tuple(f"R{i}" for i in range(num))
        example = make("unsafe", rules[:1], rules)
        every = score(example, format_verdict(Label("unsafe", rules)))
        guesses = [score(example, format_verdict(Label("unsafe", (rule,)))) for rule in rules]
        assert every <= sum(guesses) / num + 1e-12


def test_unlabelled_examples_do_not_apply(make):
    assert score(make(None, ()), "<answer>safe</answer>") is None


def test_other_labels_are_refused_not_coerced(make):
    with pytest.raises(RewardError, match="label 'Safe'"):
        score(make("Safe", ()), "<answer>safe</answer>")


def test_without_known_rules_any_id_can_be_cited(make):
    assert score(make("unsafe", ("X1",), rules=None), "<answer>unsafe: X1</answer>") == 1.0
