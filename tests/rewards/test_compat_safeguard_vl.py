"""The released reward: every cell of its table, and each documented trap."""

import itertools

import numpy as np
import pytest

from guardjax.rewards.compat_safeguard_vl import accuracy_reward, format_reward
from guardjax.rewards.named import reward_by_name
from guardjax.rewards.reward import RewardError, call_reward

LONG = "x" * 50
SHORT = "x" * 49
WORDS = {
    "yes_no": {"safe": "yes", "unsafe": "no"},
    "safe_unsafe": {"safe": "safe", "unsafe": "unsafe: R2"},
}
# (gold, case, valid think) -> reward; core table of the released code.
TABLE = {
    ("safe", "right", True): 1.7, ("safe", "right", False): 1.2,
    ("unsafe", "right", True): 2.0, ("unsafe", "right", False): 1.5,
    ("safe", "wrong", True): 1.0, ("safe", "wrong", False): 0.5,
    ("unsafe", "wrong", True): 1.0, ("unsafe", "wrong", False): 0.5,
    ("safe", "unreadable", True): 0.5, ("safe", "unreadable", False): 0.0,
    ("unsafe", "unreadable", True): 0.5, ("unsafe", "unreadable", False): 0.0,
}


def accuracy(make, gold, text, vocabulary="yes_no"):
    value, applies = call_reward("a", accuracy_reward(vocabulary), [make(gold)], [text])
    assert applies.all()
    return float(value[0])


@pytest.mark.parametrize("vocabulary", WORDS)
@pytest.mark.parametrize("gold, case, thinks", TABLE)
def test_table(make, gold, case, thinks, vocabulary):
    words = WORDS[vocabulary]
    other = "unsafe" if gold == "safe" else "safe"
    word = {"right": words[gold], "wrong": words[other], "unreadable": "maybe"}[case]
    answers = [f"<answer>{word}</answer>"]
    if case == "unreadable":
        answers += ["", word, f"<answer>{words[gold]}"]
    thinks_as = [f"<think>{LONG}</think>"] if thinks else ["", f"<think>{SHORT}</think>"]
    if not thinks:
        thinks_as += [f"<think>  {SHORT} \n</think>", f"<think>{LONG}", f"{LONG}</think>"]
    for think, answer in itertools.product(thinks_as, answers):
        found = accuracy(make, gold, think + answer, vocabulary)
        assert found == pytest.approx(TABLE[gold, case, thinks]), think + answer


@pytest.mark.parametrize(
    "text, want",
    [
        (f"<think>{LONG}</think><answer>no</answer>", 1),
        ("<think></think> \n <answer></answer>", 1),
        ("<think>a</think><answer>yes</answer><answer>no</answer>", 1),
        ("<answer>no</answer>", 0),
        ("<think>a</think> so <answer>no</answer>", 0),
        ("x<think>a</think><answer>no</answer>", 0),
        ("<think>a</think><answer>no</answer>\n", 0),
        ("<answer>no</answer><think>a</think>", 0),
        ("", 0),
    ],
)
def test_format(make, text, want):
    assert call_reward("f", format_reward, [make()], [text])[0] == [want]


def test_documented_traps(make):
    pay = lambda gold, text: accuracy(make, gold, text)
    # The first answer wins, also inside the think block, in any case.
    assert pay("safe", "<think><answer>YES</answer></think><answer>no</answer>") == 1.2
    assert pay("safe", "<ANSWER> Yes\n</ANSWER><answer>no</answer>") == 1.2
    # Wrong with filler is close to right without.
    assert pay("safe", f"<think>{LONG}</think><answer>no</answer>") == 1.0
    total = reward_by_name("safeguard_vl")
    text = f"<think>{LONG}</think><answer>{{}}</answer>"
    scores = total.score(
        [make("unsafe"), make("unsafe"), make("safe")],
        [text.format("yes"), text.format("no"), text.format("yes")],
    )
    np.testing.assert_allclose(scores.value, [2.0, 3.0, 2.7])


def test_vocabularies_do_not_mix(make):
    assert accuracy(make, "safe", "<answer>safe</answer>", "yes_no") == 0
    assert accuracy(make, "safe", "<answer>yes</answer>", "safe_unsafe") == 0
    with pytest.raises(ValueError, match="true_false"):
        accuracy_reward("true_false")


def test_labels(make):
    for reward in (accuracy_reward(), format_reward):
        assert not call_reward("r", reward, [make(None, ())], ["<answer>yes</answer>"])[1].any()
        with pytest.raises(RewardError, match="label 'ok'"):
            call_reward("r", reward, [make("ok", ())], ["<answer>yes</answer>"])
