"""A person's own reward: a function in either convention or a composition, in a file or module."""

import numpy as np
import pytest

from guardjax.rewards import RewardError, reward_by_name

FILE = '''
"""Rewards of mine."""
from __future__ import annotations
import dataclasses
import numpy as np
from guardjax.rewards import Composition, Part, per_row

@dataclasses.dataclass
class Longest:
    most: float = 10.0

def ours(examples, completions):
    return np.array([float(len(c)) for c in completions]), np.ones(len(completions), bool)

def theirs(completions, label, **kwargs):
    return [min(Longest().most, 2.0 * len(c)) if l == "unsafe" else None
            for c, l in zip(completions, label)]

both = Composition((Part("ours", ours), Part("words", per_row(lambda e, c: 1.0), 0.5)))

def other(text):
    return 1.0

async def strange(examples, completions):
    return 1.0

number = 3
'''


@pytest.fixture
def file(tmp_path):
    (tmp_path / "mine.py").write_text(FILE)
    return tmp_path / "mine.py"


@pytest.mark.parametrize("name, value, applies", [
    ("ours", [2, 3], [True, True]), ("theirs", [4, 0], [True, False]),
    ("both", [2.5, 3.5], [True, True])])
def test_each_form(make, file, name, value, applies):
    scores = reward_by_name(f"{file}:{name}").score([make(), make(label="safe")], ["ab", "abc"])
    np.testing.assert_array_equal(scores.value, value)
    np.testing.assert_array_equal(scores.applies, applies)
    assert name == "both" or list(scores.parts) == [name]


def test_of_a_module(make):
    composition = reward_by_name("guardjax.rewards.verdict_reward:verdict_reward")
    scores = composition.score([make(label="safe")], ["<answer>safe</answer>"])
    assert scores.value == [1.0] and list(scores.parts) == ["verdict_reward"]


@pytest.mark.parametrize("name, problem", [
    ("our", "has no 'our'; it has .*ours, theirs"),
    ("other", r"takes \(text\); a reward is \(examples, completions\)"),
    ("strange", "wants 'examples', which is not among"),
    ("number", "int is no function"),
])
def test_what_is_no_reward_is_said(file, name, problem):
    with pytest.raises(ValueError, match=problem):
        reward_by_name(f"{file}:{name}")


def test_code_that_fails_is_named(tmp_path):
    with pytest.raises(ValueError, match="none.py does not exist"):
        reward_by_name(f"{tmp_path}/none.py:mine")
    with pytest.raises(ValueError, match="no_such_module: ModuleNotFoundError"):
        reward_by_name("no_such_module:mine")
    (tmp_path / "broken.py").write_text("def mine(:\n")
    with pytest.raises(ValueError, match="broken.py: SyntaxError: .*line 1"):
        reward_by_name(f"{tmp_path}/broken.py:mine")


def test_a_failure_has_the_functions_name(make, file):
    file.write_text("def mine(completions):\n    return [1 / 0]\n")
    with pytest.raises(RewardError, match="reward 'mine', row 0: raised ZeroDivisionError"):
        reward_by_name(f"{file}:mine").score([make()], ["a"])
