"""What a reward is, the one checked way to call it, and the simplest way to write one."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from guardjax.types import PolicyExample

Reward = Callable[[Sequence[PolicyExample], Sequence[str]], tuple[np.ndarray, np.ndarray]]
"""`(examples, completions) -> (value [n] float, applies [n] bool)`, a pure function.

Row i is completion i, and `examples[i]` what it answers; an example stands G times where it has G
completions. Where `applies` is False the reward has nothing to say and its value is ignored: that
is not the same as 0. Completions are decoded without their end token; pass "" for one that the
token limit cut, which nobody can read as an answer.
"""


# Looking for the row at fault calls the reward again, a row at a time; it ends after so long.
_SEARCH_SECONDS = 5.0


class RewardError(ValueError):
    """A reward that failed. Never turned into a 0, which would be a lesson to the model.

    Attributes:
      name: the reward's name.
      row: the row at fault, or None where it is not one row.
    """

    def __init__(self, name: str, row: int | None, problem: str) -> None:
        self.name = name
        self.row = row
        place = "" if row is None else f", row {row}"
        super().__init__(f"reward {name!r}{place}: {problem}")


class NonFiniteRewardError(RewardError):
    """A number that is NaN or infinite: what one answer may do to a formula, and no other."""


def call_reward(
    name: str, reward: Reward, examples: Sequence[PolicyExample], completions: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Calls a reward and checks what it returns.

    Returns:
      (value [n] float64, applies [n] bool); the value is 0 where it does not apply.

    Raises:
      RewardError: the reward raised (the cause is attached, and the row where one row alone
        raises too), did not return a pair of n values and n bools, or a value that applies is
        None, not a number, NaN or infinite (the last two as `NonFiniteRewardError`).
      ValueError: as many examples as completions were not given.
    """
    if len(examples) != len(completions):
        raise ValueError(f"{len(examples)} examples for {len(completions)} completions")
    try:
        result = reward(examples, completions)
    except RewardError:
        raise
    except Exception as error:
        row = _raising_row(reward, examples, completions)
        which = "" if row is None else f" (example {examples[row].example_id!r})"
        problem = f"raised {type(error).__name__}: {error}{which}"
        raise RewardError(name, row, problem) from error
    if not isinstance(result, tuple) or len(result) != 2:
        raise RewardError(name, None, f"returned {type(result).__name__}, not (value, applies)")
    _check_length(name, result[0], len(examples))
    applies = _applies(name, result[1], len(examples))
    return _values(name, result[0], applies, examples), applies


def per_row(score: Callable[[PolicyExample, str], float | None]) -> Reward:
    """A reward from a function of one example and one completion; None means "does not apply"."""

    @functools.wraps(score)
    def reward(
        examples: Sequence[PolicyExample], completions: Sequence[str]
    ) -> tuple[np.ndarray, np.ndarray]:
        return split_none([score(*row) for row in zip(examples, completions, strict=True)])

    return reward


def split_none(scores: Sequence[float | None]) -> tuple[np.ndarray, np.ndarray]:
    """(values, applies) of scores in which None means "does not apply"; checks nothing."""
    scores = list(scores)
    applies = np.array([score is not None for score in scores], bool)
    # Kept as objects: a value that is no number must reach the check that names its row.
    value = np.empty(len(scores), object)
    value[:] = [0.0 if score is None else score for score in scores]
    return value, applies


def _check_length(name: str, value: Any, num: int) -> None:
    try:
        shape = np.shape(value)
    except ValueError:  # ragged
        shape = None
    if shape != (num,):
        raise RewardError(name, None, f"wanted {num} values, got shape {shape}")


def _applies(name: str, applies: Any, num: int) -> np.ndarray:
    applies = np.asarray(applies)
    if applies.shape != (num,) or applies.dtype != bool:
        raise RewardError(
            name, None, f"applies must be {num} bools, not {applies.dtype} {applies.shape}"
        )
    return applies


def _values(
    name: str, value: Any, applies: np.ndarray, examples: Sequence[PolicyExample]
) -> np.ndarray:
    checked = np.zeros(len(applies), np.float64)
    for row in np.flatnonzero(applies):
        kind = NonFiniteRewardError
        try:
            checked[row] = float(value[row])
        except (TypeError, ValueError):
            checked[row], kind = np.nan, RewardError
        if not np.isfinite(checked[row]):
            raise kind(
                name, int(row),
                f"value {value[row]!r} is not a finite number "
                f"(example {examples[row].example_id!r})",
            )
    return checked


def _raising_row(
    reward: Reward, examples: Sequence[PolicyExample], completions: Sequence[str]
) -> int | None:
    """The first row that raises on its own; a reward over several rows may have none."""
    end = time.monotonic() + _SEARCH_SECONDS
    for row, (example, completion) in enumerate(zip(examples, completions)):
        if time.monotonic() > end:
            return None
        try:
            reward([example], [completion])
        except Exception:
            return row
    return None
