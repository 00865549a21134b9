"""What an invalid answer costs, counted in the three ways that papers count it, side by side.

Wrong for either label is the headline here. PolicyShiftGuard drops such answers, and SafeGuard-VL's
released evaluation calls them safe; which one is chosen can turn the order of two guards.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from guardjax.eval.report import ReportTable
from guardjax.eval.tables import Column, ResultRow

METRICS = ("invalid_rate", "f1", "f1_invalid_safe", "f1_invalid_dropped", "accuracy",
           "accuracy_invalid_safe", "accuracy_invalid_dropped")
_TITLES = ("Invalid", "F1, wrong", "F1, safe", "F1, dropped", "Acc., wrong", "Acc., safe",
           "Acc., dropped")


def invalid_table(rows: Iterable[ResultRow], variants: Sequence[str], split: str) -> ReportTable:
    """The rate of invalid answers, and F1 and accuracy under each view.

    Folded where no variant has an invalid answer on `split`: the views are one then.
    """
    rows = list(rows)
    rates = [row.value for row in rows if (row.split, row.metric) == (split, "invalid_rate")
             and row.variant in variants and not math.isnan(row.value)]
    return ReportTable(
        "Invalid answers, counted in three ways", rows, variants,
        [Column(title, split, name) for title, name in zip(_TITLES, METRICS, strict=True)],
        "Counted as wrong (which every other table does), as safe, and left out.",
        folded=not any(rates))
