"""Intervals by a bootstrap that is crossed over scenes, policies and seeds.

Verdicts on one scene under many policies are not independent, nor are verdicts under one policy
on many scenes. So each draw resamples scenes (both members of an edited pair together), policies
and seeds, each with replacement and independently, and a verdict counts by the product of the
three (Owen 2007, "The pigeonhole bootstrap"). Intervals are percentiles. With S seeds the seed
part is too narrow by sqrt((S - 1) / S), and with one seed it is nil: say how many seeds there are.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from guardjax.eval.cells import Axes, Cells, Weights
from guardjax.eval.metrics import Metric

FACTORS = ("scenes", "policies", "seeds")
_CHUNK = 64     # draws at once: the [D, n] weights stay in cache and memory stays small


@dataclasses.dataclass(frozen=True)
class Interval:
    """A value with its percentile interval (NaN where undefined) and the number of units."""

    value: float
    low: float
    high: float
    n: int


def interval(
    metric: Metric, runs: Mapping[int, Cells], *, draws: int = 1000, seed: int = 0,
    level: float = 0.95, resample: Sequence[str] | None = None,
) -> Interval:
    """The metric of a variant, the mean over its seeds (`runs`: seed -> cells), with interval.

    `resample` names the factors to resample; by default all, but not the policies of a metric
    whose policies are a fixed list. Deterministic in `seed`. Raises `ValueError` without runs,
    for runs with different axes and for an unknown factor.
    """
    resample = _factors(metric, resample)
    axes = _shared_axes(runs)
    value, n = _values(metric, runs, Weights.ones(axes))
    drawn = []
    for weights, rng in _draws(axes, draws, seed, resample):
        per_seed, _ = _values(metric, runs, weights)
        drawn.append(_mean(per_seed, _seed_weights(rng, per_seed, resample)))
    return _interval(float(_mean(value)[0]), np.concatenate(drawn), n, level)


def difference(
    metric: Metric, runs: Mapping[int, Cells], others: Mapping[int, Cells], *,
    draws: int = 1000, seed: int = 0, level: float = 0.95,
    resample: Sequence[str] | None = None,
) -> Interval:
    """Metric of `runs` minus metric of `others`, paired: both see the same draws.

    Scenes and policies are drawn once for both. Seeds are drawn once too where both variants
    have the same seeds (same data order), else independently. Raises `ValueError` where the two
    were not scored on the same examples with the same labels.
    """
    resample = _factors(metric, resample)
    axes = _shared_axes({**{("a", k): v for k, v in runs.items()},
                         **{("b", k): v for k, v in others.items()}})
    _check_same_examples(runs, others)
    paired = sorted(runs) == sorted(others)
    ones = Weights.ones(axes)
    (mine, n), (theirs, _) = _values(metric, runs, ones), _values(metric, others, ones)
    drawn = []
    for weights, rng in _draws(axes, draws, seed, resample):
        a, _ = _values(metric, runs, weights)
        b, _ = _values(metric, others, weights)
        w_a = _seed_weights(rng, a, resample)
        w_b = w_a if paired else _seed_weights(rng, b, resample)
        drawn.append(_mean(a, w_a) - _mean(b, w_b))
    value = float(_mean(mine)[0] - _mean(theirs)[0])
    return _interval(value, np.concatenate(drawn), n, level)


def _factors(metric: Metric, resample: Sequence[str] | None) -> tuple[str, ...]:
    if resample is None:
        return ("scenes", "seeds") if metric.fixed_policies else FACTORS
    unknown = set(resample) - set(FACTORS)
    if unknown:
        raise ValueError(f"unknown factor {sorted(unknown)}: choose from {', '.join(FACTORS)}")
    return tuple(resample)


def _shared_axes(runs: Mapping) -> Axes:
    if not runs:
        raise ValueError("no runs to measure")
    axes = next(iter(runs.values())).axes
    if any(cells.axes != axes for cells in runs.values()):
        raise ValueError("runs that are compared must be tabulated with one `Axes`")
    return axes


def _check_same_examples(runs: Mapping[int, Cells], others: Mapping[int, Cells]) -> None:
    reference = next(iter(runs.values()))
    for cells in (*runs.values(), *others.values()):
        apart = set(cells.keys) ^ set(reference.keys)
        if apart:
            raise ValueError(f"the variants were scored on different examples: {len(apart)} are "
                             f"in one only, such as {min(apart)}")
        changed = np.flatnonzero(cells.gold != reference.gold)
        if len(changed):
            raise ValueError(f"{cells.keys[changed[0]]} has two different labels")


def _draws(axes: Axes, draws: int, seed: int, resample: Sequence[str]):
    """Yields (weights of up to `_CHUNK` draws, the generator to go on with)."""
    rng = np.random.default_rng(seed)
    num_clusters, num_policies = len(axes.clusters), len(axes.policies)
    for start in range(0, draws, _CHUNK):
        size = min(_CHUNK, draws - start)
        clusters = np.ones((size, num_clusters))
        policies = np.ones((size, num_policies + 1))
        if "scenes" in resample and num_clusters:
            clusters = _counts(rng, size, num_clusters)
        if "policies" in resample and num_policies:
            policies[:, :-1] = _counts(rng, size, num_policies)
        yield Weights(clusters, policies), rng


def _counts(rng: np.random.Generator, draws: int, size: int) -> np.ndarray:
    """How often each of `size` things is drawn in `size` draws with replacement: `[D, size]`."""
    picks = rng.integers(0, size, (draws, size)) + size * np.arange(draws)[:, None]
    return np.bincount(picks.ravel(), minlength=draws * size).reshape(draws, size).astype(float)


def _values(
    metric: Metric, runs: Mapping[int, Cells], weights: Weights
) -> tuple[np.ndarray, int]:
    """(`[D, S]` values by seed, units over all seeds)."""
    results = [metric.compute(cells, weights) for _, cells in sorted(runs.items())]
    return np.stack([value for value, _ in results], axis=1), sum(n for _, n in results)


def _seed_weights(
    rng: np.random.Generator, values: np.ndarray, resample: Sequence[str]
) -> np.ndarray:
    draws, num_seeds = values.shape
    return _counts(rng, draws, num_seeds) if "seeds" in resample else np.ones_like(values)


def _mean(values: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Mean over seeds of `[D, S]`; NaN where any seed that was drawn is undefined."""
    weights = np.ones_like(values) if weights is None else weights
    used = np.where(weights > 0, values, 0.0)
    return np.sum(used * weights, axis=1) / np.sum(weights, axis=1)


def _interval(value: float, drawn: np.ndarray, n: int, level: float) -> Interval:
    drawn = drawn[~np.isnan(drawn)]     # draws that happened to hold no unit at all
    if not len(drawn) or np.isnan(value):
        return Interval(value, np.nan, np.nan, n)
    tail = 100 * (1 - level) / 2
    low, high = np.percentile(drawn, [tail, 100 - tail])
    return Interval(value, float(low), float(high), n)
