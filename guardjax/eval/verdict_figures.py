"""What a report shows of verdicts beside its tables: pairs of policies, confusion, curves.

Rows are of one split, and of all seeds of a variant. `names` maps variants to what people read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np

from guardjax.eval.confusion import confusion_by_category, row_shares
from guardjax.eval.curves import drawable, score_curves, scores_of
from guardjax.eval.figures import display_width, heat_maps
from guardjax.eval.policy_pairs import PolicyPairs, policy_pairs
from guardjax.eval.records import LABELS, Prediction
from guardjax.eval.report import PlainTable, ReportFigure

_CATEGORIES_SHOWN = 20
_SAID = ("safe", "unsafe", "review")        # in the order of `records.OUTCOMES`
_NO_NAMES: Mapping[str, str] = MappingProxyType({})


def pair_figures(rows: Sequence[Prediction], policy_of: Mapping[str, str] | None = None,
                 names: Mapping[str, str] = _NO_NAMES) -> list[ReportFigure]:
    """The heat maps of `policy_pairs`, where two policies disagree about a picture.

    Variants that were asked under the same policies are panels of one figure.
    """
    alike: dict[tuple[str, ...], dict[str, PolicyPairs]] = {}
    for name, mine in _split(rows, names).items():
        found = policy_pairs(mine, policy_of)
        if len(found.policies) > 1:
            alike.setdefault(found.policies, {})[name] = found
    return [_pair_figure(policies, panels) for policies, panels in alike.items()]


def _pair_figure(policies: Sequence[str], panels: Mapping[str, PolicyPairs]) -> ReportFigure:
    png = heat_maps(
        {name if len(panels) > 1 else "": found.shares for name, found in panels.items()},
        policies, policies, row_title="forbidden by", column_title="allowed by")
    counts = [found.counts.sum() for found in panels.values()]
    fewest_to_most = " to ".join(f"{n:,}" for n in sorted({min(counts), max(counts)}))
    return ReportFigure(
        "Policy by policy", png,
        "Of the pictures that the policy of the row forbids and that of the column allows: the "
        "share, in per cent, with both verdicts right. A guard that goes by the picture alone has "
        f"0 everywhere. {fewest_to_most} pairs of verdicts{' a panel' if len(panels) > 1 else ''}.",
        width=display_width(png))


def confusion_figures(rows: Sequence[Prediction], category_of: Mapping[str, str],
                      names: Mapping[str, str] = _NO_NAMES) -> list[ReportFigure]:
    """Shares of verdicts by category and label, a figure a variant, where there are two categories.
    """
    figures = []
    for whose, mine in _by_variant(rows, names):
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
        png = heat_maps(panels, shown, _SAID, row_title="", column_title="verdict")
        figures.append(ReportFigure(
            f"Confusion by category{whose}", png, caption, width=display_width(png)))
    return figures


def confusion_tables(rows: Sequence[Prediction], category_of: Mapping[str, str],
                     names: Mapping[str, str] = _NO_NAMES) -> list[PlainTable]:
    """The counts behind `confusion_figures`."""
    head = ("Category", *(f"{label} → {said}" for label in LABELS for said in _SAID))
    tables = []
    for whose, mine in _by_variant(rows, names):
        counts = confusion_by_category(mine, category_of)
        if len(counts) > 1:
            tables.append(PlainTable(
                f"Verdicts by category{whose}", head,
                [(name, *map(str, table.ravel())) for name, table in counts.items()],
                "Label → verdict, in rows."))
    return tables


def curve_figures(rows: Sequence[Prediction], names: Mapping[str, str] = _NO_NAMES
                  ) -> list[ReportFigure]:
    """The curves of P(unsafe), one colour a variant; none where no verdict has one."""
    scores = drawable({name: scores_of(mine) for name, mine in _split(rows, names).items()})
    if not scores:
        return []
    counts = ", ".join(f"{name} {len(gold):,}" for name, (gold, _) in scores.items())
    return [ReportFigure(
        "P(unsafe) as a score", score_curves(scores),
        f"Verdicts with P(unsafe): {counts}. The dashed lines are a guess by coin, and a guard "
        "whose P(unsafe) is the share that is unsafe.")]


def _by_variant(rows: Sequence[Prediction], names: Mapping[str, str]
                ) -> list[tuple[str, list[Prediction]]]:
    """(": NAME" for a title, rows) of each variant; a single one is not named."""
    found = _split(rows, names)
    return [(f": {name}" if len(found) > 1 else "", mine) for name, mine in found.items()]


def _split(rows: Sequence[Prediction], names: Mapping[str, str]) -> dict[str, list[Prediction]]:
    found: dict[str, list[Prediction]] = {}
    for row in rows:
        found.setdefault(row.variant, []).append(row)
    return {names.get(variant, variant): mine for variant, mine in found.items()}
