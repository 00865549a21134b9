"""Trained on one level of the ladder, tested on all five: the matrix of the heat map."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from guardjax.eval.figures import heat_maps, result_matrix
from guardjax.eval.records import Prediction
from guardjax.eval.report import ReportFigure
from guardjax.eval.summary import split_by_policy
from guardjax.eval.tables import ResultRow
from guardjax.policies import LADDER_LEVELS, load_ladder

LADDER = "ladder"
# F1 of a level, and accuracy for one that no picture violates (L1).
METRIC = "macro_f1"
TITLE = "Trained on one level, tested on all five"
_CAPTION = ("F1 of the class unsafe in per cent, mean over seeds; accuracy on L1, which no picture "
            "violates. On the diagonal a model is tested on the policy it was trained on.")


def level_splits() -> list[str]:
    """The split of each level's results, L1 to L5: "ladder/ladder-L1"."""
    return [f"{LADDER}/{policy.id}" for policy in load_ladder().values()]


def by_level(predictions: Iterable[Prediction]) -> list[Prediction]:
    """The ladder's predictions with each level as a split of its own, to be summarised."""
    return split_by_policy(row for row in predictions if row.split == LADDER)


def level_matrices(
    rows: Sequence[ResultRow], kinds: Mapping[str, str]
) -> dict[str, np.ndarray]:
    """Title -> `[5, 5]` shares, trained level by tested level, NaN where there is no result.

    `kinds` maps an algorithm, the first half of variants like "sft_l2", to its title; one without
    any result is left out.
    """
    found = {title: result_matrix(
        rows, [f"{kind}_{level.lower()}" for level in LADDER_LEVELS], level_splits(), METRIC)
        for kind, title in kinds.items()}
    return {title: matrix for title, matrix in found.items() if not np.isnan(matrix).all()}


def level_figure(
    rows: Sequence[ResultRow], kinds: Mapping[str, str], title: str = TITLE
) -> ReportFigure | None:
    """The heat maps side by side, or None where there is no result at all."""
    matrices = level_matrices(rows, kinds)
    if not matrices:
        return None
    missing = "" if not any(np.isnan(m).any() for m in matrices.values()) else (
        " A dash stands for a level that was not trained on.")
    return ReportFigure(title, heat_maps(matrices, LADDER_LEVELS, LADDER_LEVELS),
                        _CAPTION + missing, width=380 * len(matrices))
