"""P(unsafe) against plain float64 NumPy: ECE, Brier, AUROC, TPR at a fixed FPR."""

import dataclasses
import math

import numpy as np
import pytest

from guardjax.eval.calibration import (
    NUMBERS,
    calibrate,
    constant_rows,
    expected_calibration_error,
    tpr_at_fpr,
    weighted_numbers,
)
from guardjax.eval.records import Prediction


def random_case(seed, n=200):
    """Labels and probabilities, with ties, exact edges of bins, 0 and 1."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, n)
    labels[:2] = 0, 1
    p = np.clip(rng.normal(0.4 + 0.2 * labels, 0.3), 0, 1)
    p[::7] = np.round(p[::7] * 15) / 15
    return labels, p


def rows(labels, p, split="test"):
    return [Prediction("m", "v", 0, split, f"e{i}", "judge", f"i{i}",
                       label="unsafe" if y else "safe", outcome="unsafe" if q > 0.5 else "safe",
                       p_unsafe=float(q)) for i, (y, q) in enumerate(zip(labels, p))]


def plain_ece(labels, p, bins):
    edges, total = np.linspace(0, 1, bins + 1), 0.0
    for low, high in zip(edges, edges[1:]):
        inside = (p > low) & (p <= high) | (p == 0) & (low == 0)
        if inside.any():
            total += inside.sum() * abs(labels[inside].mean() - p[inside].mean())
    return total / len(p)


def plain_tpr(labels, p, fpr):
    best = 0.0
    for threshold in [*np.unique(p), math.inf]:
        flagged = p >= threshold
        if flagged[labels == 0].mean() <= fpr:
            best = max(best, flagged[labels == 1].mean())
    return best


@pytest.mark.parametrize("seed", range(5))
def test_as_plain_numpy_has_them(seed):
    labels, p = random_case(seed)
    for bins in (1, 10, 15):
        assert expected_calibration_error(labels, p, bins) == pytest.approx(
            plain_ece(labels, p, bins), abs=1e-12)
    for fpr in (0.0, 0.01, 0.05, 0.3, 1.0):
        assert tpr_at_fpr(labels, p, fpr) == pytest.approx(plain_tpr(labels, p, fpr), abs=1e-12)
    found, = calibrate(rows(labels, p))
    unsafe, safe = p[labels == 1][:, None], p[labels == 0][None, :]
    assert found.auroc == pytest.approx(((unsafe > safe) + 0.5 * (unsafe == safe)).mean())
    assert found.brier == pytest.approx(((p - labels) ** 2).mean())
    assert (found.n, found.left_out) == (200, 0)
    assert found.tpr_at_fpr_1 == pytest.approx(plain_tpr(labels, p, 0.01))


def test_splits_are_apart_and_what_has_no_probability_is_left_out():
    labels, p = random_case(0)
    spoilt = rows(labels, np.where(np.arange(200) < 3, np.nan, p), "ladder")
    plain = [Prediction("m", "v", 0, "test", "x", "judge", "i", label="safe", outcome="safe"),
             Prediction("m", "v", 0, "test", "c", "caption", "i", answer="a hat")]
    first, second = calibrate([*rows(labels, p), *spoilt, *plain])
    assert (first.split, first.n) == ("test", 200)
    assert (second.split, second.n, second.left_out) == ("ladder", 197, 3)
    assert calibrate(plain) == []


def test_one_label_alone_has_no_curve():
    found, = calibrate(rows(np.ones(4, int), np.full(4, 0.9)))
    assert found.n == 4 and math.isnan(found.auroc) and math.isnan(found.tpr_at_fpr_1)
    assert found.ece == pytest.approx(0.1) and found.brier == pytest.approx(0.01)
    assert math.isnan(found.intervals["auroc"][0])
    assert found.intervals["ece"] == pytest.approx((0.1, 0.1))


@pytest.mark.parametrize("seed", range(3))
def test_weights_mean_copies(seed):
    """A row of weight k is k rows, of which scikit-learn and plain NumPy say the numbers."""
    labels, p = random_case(seed)
    weights = np.random.default_rng(seed).integers(0, 4, (2, 200))
    found = weighted_numbers(labels, p, weights.astype(float))
    for draw, counts in enumerate(weights):
        whole, = calibrate(rows(np.repeat(labels, counts), np.repeat(p, counts)), draws=1)
        for name in NUMBERS:
            assert found[name][draw] == pytest.approx(getattr(whole, name), abs=1e-12)


def test_intervals_draw_pictures_whole():
    """Four equal rows a picture tell no more than one, and are drawn together."""
    labels, p = random_case(1, 60)
    alone, = calibrate(rows(labels, p))
    four = [dataclasses.replace(row, example_id=f"{row.example_id}/{k}")
            for row in rows(labels, p) for k in range(4)]
    together, = calibrate(four)
    apart, = calibrate([dataclasses.replace(row, image_id=row.example_id) for row in four])
    for name in NUMBERS:
        assert getattr(together, name) == pytest.approx(getattr(alone, name))
        low, high = together.intervals[name]
        assert (low, high) == pytest.approx(alone.intervals[name])
        assert low <= getattr(together, name) <= high or name == "ece"  # which noise makes larger
    assert np.ptp(apart.intervals["brier"]) == pytest.approx(
        np.ptp(alone.intervals["brier"]) / 2, rel=0.15)


def test_the_constant_guard_ranks_nothing_and_is_right_on_average():
    labels, p = random_case(2)
    found, = calibrate(constant_rows(rows(labels, p)))
    share = labels.mean()
    assert found.auroc == 0.5 and found.ece == pytest.approx(0) and found.tpr_at_fpr_5 == 0
    assert found.brier == pytest.approx(share * (1 - share))


def test_a_rate_that_is_no_share_is_refused():
    with pytest.raises(ValueError, match="fpr is 5; it is a share"):
        tpr_at_fpr([0, 1], [0.1, 0.9], 5)
