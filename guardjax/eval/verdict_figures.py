"""What a report shows of verdicts beside its tables: pairs of policies, confusion, curves.

Rows are of one split; each variant in them has a figure of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from guardjax.eval.confusion import confusion_by_category, row_shares
from guardjax.eval.curves import drawable, score_curves, scores_of
from guardjax.eval.figures import heat_maps
from guardjax.eval.policy_pairs import policy_pairs
from guardjax.eval.records import LABELS, Prediction
from guardjax.eval.report import PlainTable, ReportFigure

_CATEGORIES_SHOWN = 20
_SAID = ("safe", "unsafe", "review")        # in the order of `records.OUTCOMES`


def pair_figures(rows: Sequence[Prediction], policy_of: Mapping[str, str] | None = None
                 ) -> list[ReportFigure]:
    """The heat map of `policy_pairs`, where two policies disagree about a picture."""
    figures = []
    for whose, mine in _by_variant(rows):
        found = policy_pairs(mine, policy_of)
        if len(found.policies) > 1:
            figures.append(ReportFigure(
                f"Policy by policy{whose}",
                heat_maps({"": found.shares}, found.policies, found.policies,
                          row_title="forbidden by", column_title="allowed by"),
                "Of the pictures that the policy of the row forbids and that of the column "
                "allows: the share, in per cent, with both verdicts right. A guard that goes by "
                f"the picture alone has 0 everywhere. {found.counts.sum():,} pairs of verdicts.",
                width=170 + 55 * len(found.policies)))
    return figures


def confusion_figures(rows: Sequence[Prediction], category_of: Mapping[str, str]
                      ) -> list[ReportFigure]:
    """Shares of verdicts by category and label, where there are two categories."""
    figures = []
    for whose, mine in _by_variant(rows):
        counts = confusion_by_category(mine, category_of)
        if len(counts) < 2:
            continue
        shown = list(counts)[:_CATEGORIES_SHOWN]
        tables = np.array([counts[name] for name in shown])
        panels = {f"Labelled {label}": row_shares(tables[:, place])
                  for place, label in enumerate(LABELS) if tables[:, place].any()}
        caption = ("Each row is a category: of its rows with that label the share, in per cent, "
                   "with each verdict.")
        if len(shown) < len(counts):
            caption += f" The largest {len(shown)} of {len(counts)} categories."
        figures.append(ReportFigure(
            f"Confusion by category{whose}",
            heat_maps(panels, shown, _SAID, row_title="", column_title="verdict"), caption,
            width=220 + 220 * len(panels)))
    return figures


def confusion_tables(rows: Sequence[Prediction], category_of: Mapping[str, str]
                     ) -> list[PlainTable]:
    """The counts behind `confusion_figures`."""
    head = ("Category", *(f"{label} → {said}" for label in LABELS for said in _SAID))
    tables = []
    for whose, mine in _by_variant(rows):
        counts = confusion_by_category(mine, category_of)
        if len(counts) > 1:
            tables.append(PlainTable(
                f"Verdicts by category{whose}", head,
                [(name, *map(str, table.ravel())) for name, table in counts.items()],
                "Label → verdict, in rows."))
    return tables


def curve_figures(rows: Sequence[Prediction]) -> list[ReportFigure]:
    """The curves of P(unsafe), one colour a variant; none where no verdict has one."""
    scores = drawable({name: scores_of(mine) for name, mine in _split(rows).items()})
    if not scores:
        return []
    counts = ", ".join(f"{name} {len(gold):,}" for name, (gold, _) in scores.items())
    return [ReportFigure(
        "P(unsafe) as a score", score_curves(scores),
        f"Verdicts with P(unsafe): {counts}. The dashed lines are a guess by coin, and a guard "
        "whose P(unsafe) is the share that is unsafe.")]


def _by_variant(rows: Sequence[Prediction]) -> list[tuple[str, list[Prediction]]]:
    """(": NAME" for a title, rows) of each variant; a single one is not named."""
    found = _split(rows)
    return [(f": {name}" if len(found) > 1 else "", mine) for name, mine in found.items()]


def _split(rows: Sequence[Prediction]) -> dict[str, list[Prediction]]:
    found: dict[str, list[Prediction]] = {}
    for row in rows:
        found.setdefault(row.variant, []).append(row)
    return found
