"""The predictions of one run as flat arrays, and the weights that resample them.

Axis letters of this package: `n` predictions, `C` clusters (scenes), `P` policies, `D` draws of
the bootstrap, `U` edited pairs under one policy.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

import numpy as np

from guardjax.eval.records import JUDGED_KINDS, Prediction


@dataclasses.dataclass(frozen=True)
class Axes:
    """The names that are resampled. Runs that are compared share one object."""

    clusters: tuple[str, ...]
    policies: tuple[str, ...]

    @classmethod
    def of(cls, predictions: Iterable[Prediction]) -> Axes:
        """All scenes and policies that occur, sorted, so that order of rows does not matter."""
        rows = list(predictions)
        return cls(tuple(sorted({row.cluster for row in rows})),
                   tuple(sorted({row.policy_id for row in rows if row.judged})))


@dataclasses.dataclass(frozen=True)
class Weights:
    """How often each scene and each policy was drawn; ones are the sample itself.

    `clusters` is `[D, C]` and `policies` `[D, P + 1]`, both float64. The last policy column is
    all ones: captions and questions have policy index -1 and so are never resampled by policy.
    """

    clusters: np.ndarray
    policies: np.ndarray

    @classmethod
    def ones(cls, axes: Axes) -> Weights:
        """The sample itself, as one draw."""
        return cls(np.ones((1, len(axes.clusters))), np.ones((1, len(axes.policies) + 1)))


@dataclasses.dataclass(frozen=True)
class Groups:
    """A partition of some rows, for sums by group: `order [m]` sorts rows, `starts [g]` cuts."""

    order: np.ndarray
    starts: np.ndarray

    @classmethod
    def of(cls, rows: np.ndarray, group: np.ndarray) -> Groups:
        """Groups `rows` (indices, `[m]`) by `group [m]`; groups come out in sorted order."""
        order = np.argsort(group, kind="stable")
        _, starts = np.unique(group[order], return_index=True)
        return cls(rows[order], starts)

    def __len__(self) -> int:
        return len(self.starts)

    def sum(self, values: np.ndarray) -> np.ndarray:
        """`[D, n] -> [D, g]`."""
        if not len(self):       # reduceat refuses an empty list of starts
            return np.zeros((values.shape[0], 0))
        return np.add.reduceat(values[:, self.order], self.starts, axis=1)

    def spread(self, values: np.ndarray, num_rows: int) -> np.ndarray:
        """The group's value at each of its rows: `[g] -> [n]`; zero at rows of no group."""
        sizes = np.diff(np.append(self.starts, len(self.order)))
        out = np.zeros(num_rows, values.dtype)
        out[self.order] = np.repeat(values, sizes)
        return out

    def first(self, values: np.ndarray) -> np.ndarray:
        """The value at the first row of each group: `[n] -> [g]`."""
        return values[self.order[self.starts]] if len(self) else values[:0]


@dataclasses.dataclass(frozen=True)
class Cells:
    """One run (one variant, one seed, one split) as arrays, all `[n]` unless said otherwise."""

    axes: Axes
    keys: tuple[str, ...]       # kind and example id: what two compared runs must share
    judged: np.ndarray          # bool: has a label and a verdict
    caption: np.ndarray         # bool
    question: np.ndarray        # bool
    gold: np.ndarray            # bool, True is unsafe
    valid: np.ndarray           # bool, the verdict is safe or unsafe
    unsafe: np.ndarray          # bool, the verdict is unsafe
    right: np.ndarray           # bool
    rules_right: np.ndarray     # bool, the rules cited are exactly the rules violated
    cluster: np.ndarray         # int, index into axes.clusters
    policy: np.ndarray          # int, index into axes.policies; -1 without a policy
    images: Groups              # judged rows by picture, or by `unit_of`
    policies: Groups            # judged rows by policy
    pairs: np.ndarray           # [U, 2] int: the two members of an edited pair, same policy

    def weigh(self, weights: Weights) -> np.ndarray:
        """The weight of each row in each draw, `[D, n]`: its scene's times its policy's."""
        return weights.clusters[:, self.cluster] * weights.policies[:, self.policy]


def tabulate(predictions: Sequence[Prediction], axes: Axes | None = None,
             unit_of: Mapping[str, str] = MappingProxyType({})) -> Cells:
    """Arrays of one run's predictions.

    `unit_of` maps example ids to what policies are held against each other on, where that is less
    than a picture (PSS of PolicyShiftBench: a picture in a category).

    Rows are sorted by (kind, picture, policy, example), so that two runs over the same examples
    have the same cells whatever their order. Raises `ValueError` for an example that occurs
    twice (two seeds or models were mixed), and for an edited pair with more than two pictures.
    """
    axes = axes or Axes.of(predictions)
    rows = sorted(predictions, key=lambda r: (r.kind, r.image_id, r.policy_id, r.example_id))
    keys = tuple(f"{row.kind}:{row.example_id}" for row in rows)
    if len(set(keys)) != len(keys):
        twice = next(key for i, key in enumerate(sorted(keys)) if key == sorted(keys)[i - 1])
        raise ValueError(f"{twice} occurs twice: one run is one variant, one seed, one split")
    cluster_index = {name: i for i, name in enumerate(axes.clusters)}
    policy_index = {name: i for i, name in enumerate(axes.policies)}

    def flags(values: Iterable[bool]) -> np.ndarray:
        return np.fromiter(values, dtype=bool, count=len(rows))

    judged = flags(row.judged for row in rows)
    policy = np.array([policy_index[row.policy_id] if row.judged else -1 for row in rows], int)
    judged_rows = np.flatnonzero(judged)
    image_names = np.array([f"{row.kind}:{unit_of.get(row.example_id, row.image_id)}"
                            for row in rows if row.judged], str)
    return Cells(
        axes=axes, keys=keys, judged=judged,
        caption=flags(row.kind == "caption" for row in rows),
        question=flags(row.kind == "question" for row in rows),
        gold=flags(row.label == "unsafe" for row in rows),
        valid=flags(row.outcome in ("safe", "unsafe") for row in rows),
        unsafe=flags(row.outcome == "unsafe" for row in rows),
        right=flags(row.right for row in rows),
        rules_right=flags(row.judged and set(row.cited_rules) == set(row.rule_ids)
                          for row in rows),
        cluster=np.array([cluster_index[row.cluster] for row in rows], int), policy=policy,
        images=Groups.of(judged_rows, image_names),
        policies=Groups.of(judged_rows, policy[judged_rows]),
        pairs=_pairs(rows))


def tabulate_runs(
    predictions: Iterable[Prediction], axes: Axes | None = None,
    unit_of: Mapping[str, str] = MappingProxyType({}),
) -> dict[int, Cells]:
    """Seed -> its cells, for the predictions of one variant on one split; the axes are shared.

    `unit_of` as `tabulate` has it.
    """
    rows = list(predictions)
    axes = axes or Axes.of(rows)
    return {seed: tabulate([row for row in rows if row.seed == seed], axes, unit_of)
            for seed in sorted({row.seed for row in rows})}


def _pairs(rows: Sequence[Prediction]) -> np.ndarray:
    members: dict[tuple[str, str, str], list[int]] = {}
    for i, row in enumerate(rows):
        if row.kind in JUDGED_KINDS and row.pair_id:
            members.setdefault((row.kind, row.pair_id, row.policy_id), []).append(i)
    for (_, pair, policy), indices in members.items():
        if len(indices) > 2:
            raise ValueError(f"edited pair {pair!r} has {len(indices)} pictures under policy "
                             f"{policy!r}; a pair has two")
    return np.array([m for m in members.values() if len(m) == 2], int).reshape(-1, 2)
