"""Intervals over simulated evaluations with a known truth; see experiments/intervals."""

import numpy as np
import pytest

from experiments.intervals.run import (
    CROSSED,
    IMAGES_ONLY,
    MEAN,
    WORLDS,
    correct_share,
    coverage,
    true_accuracy,
)

FIXED, ALIKE, HARDER, UNLIKE = WORLDS


def test_the_truth_is_the_mean_over_both_populations():
    rng = np.random.default_rng(0)
    drawn = correct_share(MEAN + rng.normal(0, UNLIKE.scene_effect, 1_000_000)
                   + rng.normal(0, UNLIKE.policy_effect, 1_000_000))
    assert true_accuracy(UNLIKE, np.zeros(40)) == pytest.approx(drawn.mean(), abs=1e-3)
    five = np.array([-1.0, 0, 0, 1, 2])
    drawn = correct_share(MEAN + rng.normal(0, FIXED.scene_effect, (200_000, 1)) + five)
    assert true_accuracy(FIXED, five) == pytest.approx(drawn.mean(), abs=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("world, resampled, low, high", [
    (FIXED, IMAGES_ONLY, 0.93, 0.97),
    (UNLIKE, CROSSED, 0.93, 0.97),
    (ALIKE, CROSSED, 0.93, 1.0),        # careful: see the table
    (UNLIKE, IMAGES_ONLY, 0.0, 0.75),   # what resampling pictures alone would claim
])
def test_coverage(world, resampled, low, high):
    assert low <= coverage(world, resampled, evaluations=2000).share <= high
