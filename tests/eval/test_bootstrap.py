"""Intervals: seeded, fast, wide enough, and paired where two variants are compared."""

import time

import numpy as np
import pytest

from guardjax.eval.bootstrap import difference, interval
from guardjax.eval.cells import Axes, tabulate_runs
from guardjax.eval.metrics import METRICS
from tests.eval.fake_run import fake_predictions


def runs_of(variant, seeds=(0, 1, 2), **options):
    rows = [row for seed in seeds
            for row in fake_predictions(variant=variant, seed=seed, **options)]
    return rows, tabulate_runs(rows, Axes.of(rows))


def test_same_seed_same_interval_and_value_inside():
    _, runs = runs_of("a")
    for name in METRICS:
        first = interval(METRICS[name], runs, draws=100, seed=3)
        assert first == interval(METRICS[name], runs, draws=100, seed=3)
        assert first.low <= first.value <= first.high
    other = interval(METRICS["pss"], runs, draws=100, seed=4)
    assert other.low != interval(METRICS["pss"], runs, draws=100, seed=3).low


def test_value_is_the_mean_over_seeds():
    _, runs = runs_of("a")
    single = [interval(METRICS["f1"], {seed: cells}, draws=2).value
              for seed, cells in runs.items()]
    assert interval(METRICS["f1"], runs, draws=2).value == pytest.approx(np.mean(single))


def test_each_factor_widens_the_interval():
    _, runs = runs_of("a", num_pairs=40, num_policies=8)

    def width(*factors):
        result = interval(METRICS["accuracy"], runs, draws=400, resample=factors)
        return result.high - result.low

    assert width() == 0
    assert width("scenes", "policies", "seeds") > max(
        width("scenes"), width("policies"), width("seeds")) > 0


def test_the_ladder_is_a_fixed_list():
    _, runs = runs_of("a")
    assert interval(METRICS["macro_f1"], runs, draws=50) == interval(
        METRICS["macro_f1"], runs, draws=50, resample=("scenes", "seeds"))


def test_interval_of_independent_rows_is_the_binomial_one():
    """One policy, lone pictures: the plain bootstrap of a share, known in closed form."""
    rows = fake_predictions(num_pairs=200, num_policies=1, per_image=1, skill=0.8, invalid=0)
    rows = [type(row)(**{**vars(row), "pair_id": ""}) for row in rows if row.judged]
    result = interval(METRICS["accuracy"], tabulate_runs(rows), draws=2000)
    sigma = np.sqrt(result.value * (1 - result.value) / len(rows))
    assert result.high - result.low == pytest.approx(2 * 1.96 * sigma, rel=0.1)


def test_coverage_is_near_the_level():
    """With scenes drawn afresh each time, about 95 % of intervals hold the true accuracy."""
    hits = 0
    for trial in range(60):
        rows = fake_predictions(seed=trial, data_seed=trial, num_pairs=40, num_policies=12,
                                skill=0.7, invalid=0)
        result = interval(METRICS["accuracy"], tabulate_runs(rows), draws=200)
        hits += result.low <= 0.7 <= result.high
    assert hits >= 52


def test_difference_is_paired():
    rows_a, _ = runs_of("a", skill=0.9)
    rows_b, _ = runs_of("b", skill=0.6)
    axes = Axes.of(rows_a + rows_b)
    a, b = tabulate_runs(rows_a, axes), tabulate_runs(rows_b, axes)
    gap = difference(METRICS["pss"], a, b, draws=300)
    assert gap.value == pytest.approx(
        interval(METRICS["pss"], a, draws=2).value - interval(METRICS["pss"], b, draws=2).value)
    assert gap.low > 0
    itself = difference(METRICS["pss"], a, a, draws=50)
    assert (itself.value, itself.low, itself.high) == (0, 0, 0)


def test_difference_refuses_other_examples_labels_or_axes():
    rows_a, a = runs_of("a")
    rows_b, b = runs_of("b", num_pairs=11)
    with pytest.raises(ValueError, match="one `Axes`"):
        difference(METRICS["f1"], a, b)
    axes = Axes.of(rows_a + rows_b)
    with pytest.raises(ValueError, match="different examples"):
        difference(METRICS["f1"], tabulate_runs(rows_a, axes), tabulate_runs(rows_b, axes))
    relabelled = [type(row)(**{**vars(row), "label": "safe"}) if row.judged else row
                  for row in rows_a]
    with pytest.raises(ValueError, match="two different labels"):
        difference(METRICS["f1"], a, tabulate_runs(relabelled, a[0].axes))


def test_bad_requests():
    _, runs = runs_of("a")
    with pytest.raises(ValueError, match="unknown factor"):
        interval(METRICS["f1"], runs, resample=("pictures",))
    with pytest.raises(ValueError, match="no runs"):
        interval(METRICS["f1"], {})


def test_hundreds_of_draws_over_five_thousand_predictions_take_under_two_seconds():
    rows = [row for row in fake_predictions(num_pairs=312, num_policies=60, per_image=8)
            if row.judged]
    assert len(rows) > 4900
    runs = tabulate_runs(rows)
    start = time.process_time()
    interval(METRICS["pss"], runs, draws=400)
    assert time.process_time() - start < 2
