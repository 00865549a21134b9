"""Recorded answers as columns, each with the number of answers that it stands for."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from guardjax.rollouts.run_log import Answer, Group


@dataclasses.dataclass(frozen=True)
class AnswerTable:
    """n judged and rewarded answers. Means are weighed: groups are kept by sort, not at random."""

    groups: tuple[Group, ...]       # n, the group of each answer
    answers: tuple[Answer, ...]     # n
    weight: np.ndarray              # [n] float64, prompts that the group stands for
    reward: np.ndarray              # [n] float64
    right: np.ndarray               # [n] bool
    tokens: np.ndarray              # [n] float64
    step: np.ndarray                # [n] int64

    @classmethod
    def of(cls, groups: Iterable[Group]) -> AnswerTable:
        """The answers that have a label to be right or wrong about, and a reward."""
        rows = [(group, answer) for group in groups for answer in group.answers
                if answer.right is not None and answer.reward is not None]
        return cls(
            tuple(group for group, _ in rows), tuple(answer for _, answer in rows),
            np.array([group.stands_for for group, _ in rows], float),
            np.array([answer.reward for _, answer in rows], float),
            np.array([answer.right for _, answer in rows], bool),
            np.array([answer.tokens for _, answer in rows], float),
            np.array([group.step for group, _ in rows], int))

    def __len__(self) -> int:
        return len(self.answers)

    @property
    def malformed(self) -> np.ndarray:
        """[n] bool, where the verdict grammar names a problem."""
        return np.array([answer.problem is not None for answer in self.answers], bool)

    def where(self, keep: np.ndarray) -> AnswerTable:
        """The answers where `keep` [n] is True."""
        places = np.flatnonzero(keep)
        return AnswerTable(
            tuple(self.groups[i] for i in places), tuple(self.answers[i] for i in places),
            self.weight[places], self.reward[places], self.right[places], self.tokens[places],
            self.step[places])

    def thirds(self) -> tuple[AnswerTable, AnswerTable]:
        """The first and the last third of the recorded steps; of fewer than two, all twice."""
        steps = np.unique(self.step)
        if len(steps) < 2:
            return self, self
        size = max(1, len(steps) // 3)
        return self.where(self.step <= steps[size - 1]), self.where(self.step >= steps[-size])

    def share(self, found: np.ndarray | Sequence[bool]) -> float:
        """The weighed share of answers where `found` [n]; NaN of no answers."""
        return weighed_mean(np.asarray(found, float), self.weight)

    def mean_reward(self, found: np.ndarray | Sequence[bool] | None = None) -> float:
        """The weighed mean reward, of those where `found` [n] if given; NaN of no answers."""
        keep = np.ones(len(self), bool) if found is None else np.asarray(found, bool)
        return weighed_mean(self.reward[keep], self.weight[keep])


def weighed_mean(values: np.ndarray, weight: np.ndarray) -> float:
    """Sum of `weight * values` over that of `weight`; NaN of no weight."""
    total = float(weight.sum())
    return float((weight * values).sum() / total) if total > 0 else float("nan")


def weighed_quantile(values: np.ndarray, weight: np.ndarray, share: float) -> float:
    """The smallest value that at least `share` of the weight does not exceed; NaN of no values."""
    if not len(values):
        return float("nan")
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(weight[order]) >= share * weight.sum() - 1e-12
    return float(values[order][np.argmax(reached)])


def drift(lines: Sequence[Mapping[str, Any]], key: str) -> tuple[float, float] | None:
    """Means of a metric over the first and the last third of the windows that have it.

    None where fewer than two have. Windows are of (nearly) equal numbers of steps.
    """
    values = [line[key] for line in lines if isinstance(line.get(key), (int, float))]
    if len(values) < 2:
        return None
    size = max(1, len(values) // 3)
    return float(np.mean(values[:size])), float(np.mean(values[-size:]))
