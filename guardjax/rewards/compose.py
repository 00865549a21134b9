"""Several rewards as one: weighed, checked, and each logged by its name."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence

import numpy as np

from guardjax.rewards.limit import NoAnswer, call_all
from guardjax.rewards.reward import Reward, RewardError, call_reward
from guardjax.types import PolicyExample


@dataclasses.dataclass(frozen=True)
class Part:
    """One reward of a composition."""

    name: str
    reward: Reward
    weight: float = 1.0


@dataclasses.dataclass(frozen=True)
class Scores:
    """What a composition says about n completions."""

    value: np.ndarray                                     # [n] float64, weighed sum
    applies: np.ndarray                                   # [n] bool, any part applies
    parts: Mapping[str, tuple[np.ndarray, np.ndarray]]    # name -> unweighed (value, applies)

    def only(self, rows: np.ndarray) -> Scores:
        """The same, but nothing applies outside of `rows` [n] bool."""
        return Scores(np.where(rows, self.value, 0.0), self.applies & rows, {
            name: (np.where(rows, value, 0.0), applies & rows)
            for name, (value, applies) in self.parts.items()})

    def sums(self) -> dict[str, tuple[float, int]]:
        """(sum, count) of the total and of every part, unweighed, over the rows it applies to."""
        named = {"total": (self.value, self.applies), **self.parts}
        return {
            name: (float(value[applies].sum()), int(applies.sum()))
            for name, (value, applies) in named.items()
        }


@dataclasses.dataclass(frozen=True)
class Composition:
    """A weighed sum of rewards, itself a `Reward`.

    A part that does not apply to a row adds nothing to it; the other weights are not scaled up.
    A row to which no part applies must be left out of the advantages (`valid=applies`).
    """

    parts: tuple[Part, ...]

    def __post_init__(self) -> None:
        names = [part.name for part in self.parts]
        if not names:
            raise ValueError("a composition needs at least one part")
        if len(set(names)) != len(names) or "total" in names:
            raise ValueError(f"part names must differ and not be 'total': {names}")
        for part in self.parts:
            if not np.isfinite(part.weight):
                raise ValueError(f"the weight of {part.name!r} is {part.weight}")

    def __call__(
        self, examples: Sequence[PolicyExample], completions: Sequence[str]
    ) -> tuple[np.ndarray, np.ndarray]:
        scores = self.score(examples, completions)
        return scores.value, scores.applies

    def silent(self, num: int) -> Scores:
        """Scores of so many completions in which nothing applies."""
        zeros, nothing = np.zeros(num, np.float64), np.zeros(num, bool)
        return Scores(zeros, nothing, {part.name: (zeros, nothing) for part in self.parts})

    def score(self, examples: Sequence[PolicyExample], completions: Sequence[str],
              *, seconds: float = 0.0) -> Scores:
        """Scores with the parts kept apart, which are asked at the same time.

        Args:
          examples: n examples.
          completions: n completions.
          seconds: what a part may take; 0 is no limit, with the parts called one after another.

        Raises:
          RewardError: a part failed (see `call_reward`), or took longer.
        """
        calls = {part.name: functools.partial(
            call_reward, part.name, part.reward, examples, completions) for part in self.parts}
        try:
            parts = call_all(calls, seconds)
        except NoAnswer as error:
            raise RewardError(error.name, None, (
                f"no answer within {seconds:g} s for {len(completions)} completions; is a server "
                "down? `reward_seconds` sets the limit, 0 is none")) from None
        value = np.zeros(len(completions), np.float64)
        applies = np.zeros(len(completions), bool)
        for part in self.parts:
            part_value, part_applies = parts[part.name]
            value += part.weight * part_value
            applies |= part_applies
        return Scores(value, applies, parts)
