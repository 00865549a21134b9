"""Trivial models score what arithmetic says they must."""

import pytest

from guardjax.eval.baselines import always, picture_prior, policy_prior
from guardjax.eval.cells import tabulate
from guardjax.eval.metrics import METRICS, measure
from tests.eval.fake_run import fake_predictions

ROWS = fake_predictions()
SHARE = (sum(row.label == "unsafe" for row in ROWS if row.judged)
         / sum(row.judged for row in ROWS))


def value(name, rows):
    return measure(METRICS[name], tabulate(rows)).value


def test_constant_answers():
    safe, unsafe = always(ROWS, "safe"), always(ROWS, "unsafe")
    assert value("accuracy", safe) == pytest.approx(1 - SHARE)
    assert value("f1", safe) == 0
    assert value("f1", unsafe) == pytest.approx(2 * SHARE / (1 + SHARE))
    # one policy of six has no positives: always-safe is right there and scores 0 elsewhere
    assert value("macro_f1", safe) == pytest.approx(1 / 6)
    for rows in (safe, unsafe):
        assert value("pss", rows) == 0 and value("invalid_rate", rows) == 0
        assert all(row.judged and row.variant in ("always_safe", "always_unsafe") for row in rows)
    with pytest.raises(ValueError, match="constant answer"):
        always(ROWS, "needs_review")


def test_priors_bound_models_that_look_at_half_the_question():
    by_policy, by_picture = policy_prior(ROWS), picture_prior(ROWS)
    floor = max(SHARE, 1 - SHARE)
    assert value("accuracy", by_policy) >= floor
    assert value("accuracy", by_picture) >= floor
    assert value("pss", by_picture) == 0
    # one answer for a policy: a pair whose labels differ is never right
    assert value("flip_pair_accuracy", by_policy) == 0
    for rows, key in ((by_policy, "policy_id"), (by_picture, "image_id")):
        answers = {}
        for row in rows:
            assert answers.setdefault(getattr(row, key), row.outcome) == row.outcome
