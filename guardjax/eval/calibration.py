"""How well P(unsafe) ranks and how far it can be believed, by scikit-learn.

Of n judged pictures, p is P(unsafe) and y is 1 where the label is unsafe. Brier is the mean of
(p - y)**2. ECE (expected calibration error, Naeini et al., AAAI 2015, of the unsafe class) cuts
[0, 1] into equal bins and takes the mean over pictures of |mean of y - mean of p| of their bins.
AUROC is the chance that an unsafe picture gets the larger p. TPR at a false-positive rate is the
largest share of unsafe pictures flagged by a threshold that flags at most that share of safe ones.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence

import numpy as np
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, roc_auc_score, roc_curve

from guardjax.eval.records import Prediction

BINS = 15


@dataclasses.dataclass(frozen=True)
class Calibration:
    """The numbers of one split; NaN where they need both labels and one is missing."""

    split: str
    n: int              # judged pictures with a finite P(unsafe)
    left_out: int       # those whose P(unsafe) is not finite; each counts as needs_review elsewhere
    auroc: float
    brier: float
    ece: float
    tpr_at_fpr_1: float     # of 1 %
    tpr_at_fpr_5: float     # of 5 %


def expected_calibration_error(labels: Sequence[int], p_unsafe: Sequence[float],
                               bins: int = BINS) -> float:
    """ECE with `bins` bins of equal width; empty ones count nothing."""
    labels, p_unsafe = np.asarray(labels), np.asarray(p_unsafe, np.float64)
    shares, means = calibration_curve(labels, p_unsafe, n_bins=bins, strategy="uniform")
    edges = np.linspace(0, 1, bins + 1)[1:-1]       # as `calibration_curve` cuts
    counts = np.bincount(np.searchsorted(edges, p_unsafe))
    return float(np.average(np.abs(shares - means), weights=counts[counts > 0]))


def tpr_at_fpr(labels: Sequence[int], p_unsafe: Sequence[float], fpr: float) -> float:
    """The largest share of unsafe pictures that a threshold flags with at most `fpr` of the safe.

    Raises:
      ValueError: `fpr` is no share.
    """
    if not 0 <= fpr <= 1:
        raise ValueError(f"fpr is {fpr}; it is a share, from 0 to 1")
    false, true, _ = roc_curve(labels, p_unsafe, drop_intermediate=False)
    return float(true[false <= fpr].max())


def calibrate(predictions: Iterable[Prediction]) -> list[Calibration]:
    """One line a split, in order; of predictions that were scored by one token."""
    splits: dict[str, list[Prediction]] = {}
    for row in predictions:
        if row.judged and row.p_unsafe is not None:
            splits.setdefault(row.split, []).append(row)
    return [_of_split(split, rows) for split, rows in splits.items()]


def _of_split(split: str, rows: Sequence[Prediction]) -> Calibration:
    scored = [row for row in rows if math.isfinite(row.p_unsafe)]
    labels = np.array([row.label == "unsafe" for row in scored], int)
    p_unsafe = np.array([row.p_unsafe for row in scored], np.float64)
    about = (split, len(scored), len(rows) - len(scored))
    if len(set(labels.tolist())) < 2:
        return Calibration(*about, *5 * (math.nan,))
    return Calibration(
        *about, float(roc_auc_score(labels, p_unsafe)), float(brier_score_loss(labels, p_unsafe)),
        expected_calibration_error(labels, p_unsafe), tpr_at_fpr(labels, p_unsafe, 0.01),
        tpr_at_fpr(labels, p_unsafe, 0.05))
