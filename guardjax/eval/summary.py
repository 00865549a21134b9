"""From predictions to result rows: every variant, split and metric, with intervals."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

from guardjax.eval.bootstrap import difference, interval
from guardjax.eval.cells import Axes, tabulate_runs
from guardjax.eval.metrics import METRICS
from guardjax.eval.records import Prediction
from guardjax.eval.tables import ResultRow

MINUS = " − "       # between the two variants in the name of a contrast


def summarise(
    predictions: Iterable[Prediction], metrics: Sequence[str] = tuple(METRICS), *,
    draws: int = 1000, seed: int = 0, level: float = 0.95, per_seed: bool = True,
    resample: Sequence[str] | None = None,
) -> list[ResultRow]:
    """One row a (variant, split, metric) averaged over seeds and, where `per_seed`, one a seed.

    Rows come in order of first occurrence. A metric without any unit on a split is left out.
    `draws`, `seed` and `resample` are those of the bootstrap.
    """
    groups: dict[tuple[str, str], list[Prediction]] = {}
    for row in predictions:
        groups.setdefault((row.variant, row.split), []).append(row)
    rows = []
    for (variant, split), group in groups.items():
        runs = tabulate_runs(group)
        for name in metrics:
            options = {"draws": draws, "seed": seed, "level": level, "resample": resample}
            whole = interval(METRICS[name], runs, **options)
            units = [(None, whole)]
            if per_seed:    # the only seed is the mean over seeds; it is not drawn twice
                units += [(number, whole if len(runs) == 1 else interval(
                    METRICS[name], {number: cells}, **options)) for number, cells in runs.items()]
            rows += [ResultRow(variant, split, name, result.value, result.low, result.high,
                               result.n, number) for number, result in units if result.n]
    return rows


def split_by_policy(predictions: Iterable[Prediction]) -> list[Prediction]:
    """Judged rows with each policy as a split of its own, "SPLIT/POLICY", in order of policies.

    Summarised with "macro_f1" this is F1 of each policy, or accuracy where it has no positives.
    """
    rows = sorted((row for row in predictions if row.judged), key=lambda row: row.policy_id)
    return [dataclasses.replace(row, split=f"{row.split}/{row.policy_id}") for row in rows]


def contrast(
    predictions: Iterable[Prediction], variant: str, other: str, split: str, metric: str, *,
    draws: int = 1000, seed: int = 0, level: float = 0.95,
) -> ResultRow:
    """`variant` minus `other` on one split, paired over scenes and policies; a difference of
    shares. Raises `ValueError` where one has no predictions or the examples differ."""
    rows = [row for row in predictions if row.split == split]
    axes = Axes.of(rows)
    runs = [tabulate_runs([row for row in rows if row.variant == name], axes)
            for name in (variant, other)]
    for name, run in zip((variant, other), runs, strict=True):
        if not run:
            raise ValueError(f"no predictions of {name!r} on split {split!r}")
    result = difference(METRICS[metric], *runs, draws=draws, seed=seed, level=level)
    return ResultRow(f"{variant}{MINUS}{other}", split, metric, result.value, result.low,
                     result.high, result.n)
