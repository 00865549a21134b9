"""Models on one data set against the first of them: paired differences, with p."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from guardjax.eval.metrics import METRICS
from guardjax.eval.paired_test import paired_test
from guardjax.eval.records import Prediction
from guardjax.eval.summary import MINUS
from guardjax.eval.tables import ResultRow

COMPARED = ("f1", "accuracy", "macro_f1", "pss", "pair_accuracy")


def dataset_contrasts(
    predictions: Sequence[Prediction], groups: Mapping[str, str], *,
    units: Mapping[str, str] = MappingProxyType({}), draws: int = 2000, seed: int = 0,
) -> list[ResultRow]:
    """Every other variant minus the first, a row a metric that is defined on the data.

    Args:
      predictions: of one split, every variant's answers to the same rows.
      groups, units: as `dataset_rows` takes them.
      draws, seed: of the paired test.
    """
    by_variant: dict[str, list[Prediction]] = {}
    for row in predictions:
        by_variant.setdefault(row.variant, []).append(row)
    (first, base), *others = by_variant.items()
    rows = []
    for name, mine in others:
        for metric in COMPARED:
            pair = (mine, base)
            if metric == "macro_f1":
                pair = tuple(_grouped(each, groups) for each in pair)
            found = paired_test(METRICS[metric], *pair, unit_of=units, draws=draws, seed=seed)
            gap = found.difference
            if gap.n:
                rows.append(ResultRow(f"{name}{MINUS}{first}", base[0].split, metric, gap.value,
                                      gap.low, gap.high, gap.n, p=found.p))
    return rows


def _grouped(rows: Sequence[Prediction], groups: Mapping[str, str]) -> list[Prediction]:
    return [dataclasses.replace(row, policy_id=groups[row.example_id]) for row in rows]
