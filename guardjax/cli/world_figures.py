"""Figures and tables of verdicts over the policy world, for its report."""

from __future__ import annotations

from collections.abc import Sequence

from guardjax.cli.measure import harm_of
from guardjax.eval.matrix import LADDER
from guardjax.eval.records import Prediction
from guardjax.eval.report import PlainTable, ReportFigure
from guardjax.eval.verdict_figures import (
    confusion_figures,
    confusion_tables,
    curve_figures,
    pair_figures,
)
from guardjax.world.builder import WorldRecord

HARMLESS = "no harm"


def world_figures(predictions: Sequence[Prediction], split: str, records: Sequence[WorldRecord]
                  ) -> tuple[list[ReportFigure], list[PlainTable]]:
    """Figures and tables of a split's verdicts, and of those on the ladder where it was asked.

    Pairs of policies are those of the ladder, whose five levels every picture meets; of people's
    own policies all. A picture's category is its first harmful one by name.
    """
    asked = [row for row in predictions if row.judged and row.split == split]
    ladder = [row for row in predictions if row.judged and row.split == LADDER]
    harm = harm_of(records)
    category_of = {row.example_id: harm.get(row.image_id, HARMLESS) for row in asked}
    figures = pair_figures(ladder or asked) + confusion_figures(asked, category_of)
    return figures + curve_figures(asked), confusion_tables(asked, category_of)
