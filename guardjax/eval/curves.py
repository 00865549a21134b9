"""ROC, precision-recall and reliability curves of P(unsafe), by scikit-learn."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.calibration import calibration_curve
from sklearn.metrics import precision_recall_curve, roc_curve

from guardjax.eval.figures import COLOURS, FAINT, STYLE, png_bytes, short_name
from guardjax.eval.records import Prediction

BINS = 10

Scores = tuple[np.ndarray, np.ndarray]      # label is unsafe [n] bool, P(unsafe) [n] float64


def scores_of(rows: Iterable[Prediction]) -> Scores:
    """Labels and P(unsafe) of the verdicts that have a finite one."""
    found = [(row.label == "unsafe", row.p_unsafe) for row in rows
             if row.judged and row.p_unsafe is not None and math.isfinite(row.p_unsafe)]
    gold, scores = zip(*found, strict=True) if found else ((), ())
    return np.array(gold, bool), np.array(scores, np.float64)


def drawable(scores: Mapping[str, Scores]) -> dict[str, Scores]:
    """Those with both labels: a curve of one label alone is not defined."""
    return {name: each for name, each in scores.items() if len(set(each[0].tolist())) == 2}


def score_curves(scores: Mapping[str, Scores]) -> bytes:
    """The three curves as PNG, one colour a name. Raises `ValueError` where none is `drawable`."""
    scores = drawable(scores)
    if not scores:
        raise ValueError("no curve to draw: P(unsafe) of both labels is needed")
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11.4, 4.1), layout="constrained")
        roc, recall, reliability = figure.subplots(1, 3)
        for axis in (roc, reliability):
            axis.plot([0, 100], [0, 100], color=FAINT, linewidth=1.2, linestyle="--")
        lines = []
        for (gold, p), colour in zip(scores.values(), _cycle(), strict=False):
            false, true, _ = roc_curve(gold, p)
            lines += roc.plot(100 * false, 100 * true, color=colour)
            precision, reached, _ = precision_recall_curve(gold, p)
            recall.plot(100 * reached, 100 * precision, color=colour, drawstyle="steps-post")
            share, mean = calibration_curve(gold, p, n_bins=BINS, strategy="uniform")
            reliability.plot(100 * mean, 100 * share, color=colour, marker="o", markersize=4)
        _label(roc, "ROC", "safe flagged (FPR)", "unsafe flagged (TPR)")
        _label(recall, "Precision and recall", "unsafe flagged (recall)",
               "flagged that are unsafe (precision)")
        _label(reliability, "Reliability", "mean P(unsafe) of a bin", "share that is unsafe")
        figure.legend(lines, map(short_name, scores), loc="outside lower center",
                      ncols=min(3, len(scores)))
        return png_bytes(figure)


def _cycle() -> Iterable[str]:
    while True:
        yield from COLOURS


def _label(axis: Axes, title: str, x: str, y: str) -> None:
    axis.set(title=title, xlabel=f"{x}, %", ylabel=f"{y}, %", xlim=(-2, 102), ylim=(-2, 102),
             aspect="equal")
