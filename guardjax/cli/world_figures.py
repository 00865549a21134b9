"""Figures and tables of verdicts over the policy world, for its reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

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


def world_figures(
    predictions: Sequence[Prediction], split: str, records: Sequence[WorldRecord], *,
    compared: Sequence[str], shown: Sequence[str],
    names: Mapping[str, str] = MappingProxyType({}),
) -> tuple[list[ReportFigure], list[PlainTable]]:
    """Figures and tables of a split's verdicts, and of those on the ladder where it was asked.

    Pairs of policies are those of the ladder, whose five levels every picture meets; of people's
    own policies all. A picture's category is its first harmful one by name.

    Args:
      predictions: of all variants and seeds.
      split: which of them, beside the ladder.
      records: the pictures of the split.
      compared: variants that are told apart by pairs of policies and by their P(unsafe), in order.
      shown: variants with a figure and a table by category, in order: fewer, they are long.
      names: variant -> what people read.
    """
    judged = [row for row in predictions if row.judged]
    asked, ladder = (_of([row for row in judged if row.split == name], compared)
                     for name in (split, LADDER))
    harm = harm_of(records)
    category_of = {row.example_id: harm.get(row.image_id, HARMLESS) for row in asked}
    by_category = _of(asked, shown)
    levels = {row.example_id: row.policy_id.removeprefix(f"{LADDER}-") for row in ladder}
    pairs = pair_figures(ladder, levels, names) if ladder else pair_figures(asked, names=names)
    return (pairs + confusion_figures(by_category, category_of, names)
            + curve_figures(asked, names),
            confusion_tables(by_category, category_of, names))


def _of(rows: Sequence[Prediction], variants: Sequence[str]) -> list[Prediction]:
    """The rows of some variants, in their order."""
    order = {variant: place for place, variant in enumerate(variants)}
    return sorted((row for row in rows if row.variant in order),
                  key=lambda row: order[row.variant])
