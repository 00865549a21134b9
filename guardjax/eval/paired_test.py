"""Is one guard better than another? A permutation test, paired, that keeps pictures together.

If two guards answer alike, it does not matter which of them gave which of the two answers. So each
draw swaps the two guards' answers, all those to one scene together, or not; p is the share of draws
whose difference is at least as large as the one that was seen, that one counted (Phipson and Smyth
2010). With one picture a scene and accuracy as the metric this is McNemar's exact test. Policies
and seeds are taken as they are.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np

from guardjax.eval.bootstrap import Interval, difference
from guardjax.eval.cells import Axes, Weights, tabulate_runs
from guardjax.eval.metrics import Metric
from guardjax.eval.records import Prediction

_CHUNK = 64
_ROUNDING = 1e-12       # of sums in another order


@dataclasses.dataclass(frozen=True)
class PairedTest:
    """One guard minus another: the difference of shares with its interval, and p (two-sided)."""

    difference: Interval
    p: float


def paired_test(
    metric: Metric, rows: Sequence[Prediction], others: Sequence[Prediction], *,
    unit_of: Mapping[str, str] = MappingProxyType({}), draws: int = 2000, seed: int = 0,
) -> PairedTest:
    """The metric of `rows` minus that of `others`, each of one split, with the same seeds.

    The interval is that of `difference` over pictures and seeds, with half as many draws.

    Args:
      metric: one of `METRICS`.
      rows, others: the two guards' answers to the same examples.
      unit_of: as `tabulate` has it.
      draws: of the test; p is never below 1 / (draws + 1).
      seed: of all draws.

    Raises:
      ValueError: the two were not asked the same, or have other seeds.
    """
    seeds = [sorted({row.seed for row in some}) for some in (rows, others)]
    if seeds[0] != seeds[1]:
        raise ValueError(f"a paired test needs the same seeds; one has {seeds[0]}, the other "
                         f"{seeds[1]}")
    axes = Axes.of([*rows, *others])
    found = difference(metric, *(tabulate_runs(some, axes, unit_of) for some in (rows, others)),
                       draws=draws // 2, seed=seed, resample=("scenes", "seeds"))
    return PairedTest(found, _permuted(metric, rows, others, unit_of, found.value, draws, seed))


def _permuted(metric: Metric, rows: Sequence[Prediction], others: Sequence[Prediction],
              unit_of: Mapping[str, str], seen: float, draws: int, seed: int) -> float:
    """The share of swaps that make as large a difference; NaN where none was seen."""
    if np.isnan(seen):
        return float("nan")
    # Both guards' answers in one table, each scene twice under two names: a swap is which of the
    # two has weight 1. Names sort alike, so scene c of the first is scene C + c of the second.
    both = [_named(row, name) for name, some in (("a", rows), ("b", others)) for row in some]
    units = {f"{name}/{example}": f"{name}/{unit}"
             for example, unit in unit_of.items() for name in "ab"}
    axes = Axes.of(both)
    runs = tabulate_runs(both, axes, units)
    num = len(axes.clusters) // 2
    rng, larger = np.random.default_rng(seed), 0
    for start in range(0, draws, _CHUNK):
        size = min(_CHUNK, draws - start)
        kept = rng.integers(0, 2, (size, num)).astype(float)
        policies = np.ones((size, len(axes.policies) + 1))
        first, second = (
            np.mean([metric.compute(cells, Weights(clusters, policies))[0]
                     for cells in runs.values()], axis=0)
            for clusters in (np.hstack([kept, 1 - kept]), np.hstack([1 - kept, kept])))
        # A draw that is not defined counts as large: the test may only err on the careful side.
        larger += int(np.sum(~(np.abs(first - second) < abs(seen) - _ROUNDING)))
    return (1 + larger) / (1 + draws)


def _named(row: Prediction, name: str) -> Prediction:
    return dataclasses.replace(
        row, example_id=f"{name}/{row.example_id}", image_id=f"{name}/{row.image_id}",
        pair_id=f"{name}/{row.pair_id}" if row.pair_id else "")
