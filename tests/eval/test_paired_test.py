"""The paired test against McNemar's, against scipy's permutations, and its level by simulation."""

import numpy as np
import pytest
from scipy.stats import binomtest, permutation_test

from guardjax.eval.metrics import METRICS
from guardjax.eval.paired_test import paired_test
from guardjax.eval.records import Prediction
from tests.eval.fake_run import fake_predictions


def verdicts(right, variant, per_picture=1):
    """Rows whose verdict is right or wrong as given, in the order of pictures."""
    return [Prediction("m", variant, 0, "test", f"e{i:04}", "judge", f"p{i // per_picture:04}",
                       policy_id=f"L{i % per_picture}", label="unsafe",
                       outcome="unsafe" if each else "safe") for i, each in enumerate(right)]


def test_of_single_pictures_it_is_mcnemars():
    rng = np.random.default_rng(1)
    for skills in ((0.8, 0.7), (0.75, 0.75), (0.9, 0.6)):
        a, b = (rng.random(120) < skill for skill in skills)
        found = paired_test(METRICS["accuracy"], verdicts(a, "a"), verdicts(b, "b"), draws=4000)
        only_a, only_b = int(np.sum(a & ~b)), int(np.sum(b & ~a))
        exact = binomtest(only_a, only_a + only_b).pvalue
        # Three standard errors of 4,000 draws.
        assert found.p == pytest.approx(exact, abs=3 * np.sqrt(0.25 / 4000) + 1 / 4000)
        assert found.difference.value == pytest.approx(a.mean() - b.mean())


def test_pictures_are_swapped_whole():
    """Four answers a picture that are all right or all wrong: as scipy has it on their sums."""
    rng = np.random.default_rng(2)
    a, b = (np.repeat(rng.random(30) < skill, 4) for skill in (0.7, 0.6))
    found = paired_test(METRICS["accuracy"], verdicts(a, "a", 4), verdicts(b, "b", 4), draws=4000)
    sums = [each.reshape(30, 4).sum(axis=1) for each in (a, b)]
    exact = permutation_test(sums, lambda x, y, axis: np.mean(x - y, axis=axis),
                             permutation_type="samples", vectorized=True, n_resamples=20000,
                             rng=np.random.default_rng(0)).pvalue
    assert found.p == pytest.approx(exact, abs=0.02)
    alone = paired_test(METRICS["accuracy"], verdicts(a, "a"), verdicts(b, "b"), draws=500)
    assert alone.p < found.p, "answers to one picture are no independent ones"


def test_guards_that_are_alike_differ_by_chance_at_the_level():
    rng, small = np.random.default_rng(3), 0
    for _ in range(200):
        pictures = rng.random(25)       # some pictures are harder than others, for both
        a, b = (np.repeat(rng.random(25) < 0.5 + 0.4 * pictures, 3) for _ in range(2))
        p = paired_test(METRICS["accuracy"], verdicts(a, "a", 3), verdicts(b, "b", 3),
                        draws=199).p
        small += p <= 0.05
    assert small <= 18      # 5 % of 200 are 10; 18 are two and a half standard deviations more


@pytest.mark.parametrize("name", ["f1", "macro_f1", "pss", "consistency", "pair_accuracy", "pes"])
def test_any_metric_over_seeds(name):
    rows, others = ([row for seed in (0, 1) for row in fake_predictions(
        variant=variant, seed=seed, skill=skill)] for variant, skill in (("a", 0.95), ("b", 0.55)))
    better = paired_test(METRICS[name], rows, others, draws=200)
    worse = paired_test(METRICS[name], others, rows, draws=200)
    assert better.difference.value == pytest.approx(-worse.difference.value)
    assert better.p == worse.p and better.p < 0.1
    itself = paired_test(METRICS[name], rows, rows, draws=50)
    assert itself.difference.value == 0 and itself.p == 1


def test_other_seeds_or_examples_are_refused():
    rows = fake_predictions(variant="a")
    with pytest.raises(ValueError, match=r"one has \[0\], the other \[1\]"):
        paired_test(METRICS["f1"], rows, fake_predictions(variant="b", seed=1))
    with pytest.raises(ValueError, match="different examples"):
        paired_test(METRICS["f1"], rows, fake_predictions(variant="b", num_pairs=11))


def test_nothing_to_compare_has_no_p():
    right = verdicts([True] * 4, "a")
    found = paired_test(METRICS["pss"], right, right, draws=20)
    assert np.isnan(found.difference.value) and np.isnan(found.p)
