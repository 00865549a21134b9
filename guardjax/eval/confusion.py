"""Verdicts against labels, category by category: what is missed, and what is flagged in vain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from guardjax.eval.records import LABELS, OUTCOMES, Prediction


def confusion_by_category(rows: Sequence[Prediction], category_of: Mapping[str, str]
                          ) -> dict[str, np.ndarray]:
    """Category -> counts `[2, 3]` int: labels (safe, unsafe) by outcomes (safe, unsafe, review).

    Rows of one variant and split; `category_of` maps example ids, and rows without a category and
    those that are no verdicts are in none. Categories come with the largest first.
    """
    counts: dict[str, np.ndarray] = {}
    for row in rows:
        name = category_of.get(row.example_id)
        if not name or not row.judged:
            continue
        table = counts.setdefault(name, np.zeros((len(LABELS), len(OUTCOMES)), int))
        table[LABELS.index(row.label), OUTCOMES.index(row.outcome)] += 1
    return dict(sorted(counts.items(), key=lambda item: (-item[1].sum(), item[0])))


def row_shares(counts: np.ndarray) -> np.ndarray:
    """Counts `[..., outcomes]` as shares of their row; NaN where it is empty."""
    total = counts.sum(axis=-1, keepdims=True)
    with np.errstate(invalid="ignore"):
        return np.where(total > 0, counts / total, np.nan)
