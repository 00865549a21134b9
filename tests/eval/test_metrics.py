"""Metrics against scikit-learn, and PSS and the pair metrics against loops over all pairs."""

import itertools

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score

from guardjax.eval.baselines import always
from guardjax.eval.cells import Axes, Weights, tabulate
from guardjax.eval.metrics import METRICS, make_accuracy, measure
from guardjax.eval.records import Prediction
from tests.eval.fake_run import fake_predictions


@pytest.fixture(name="rows")
def _rows():
    return fake_predictions()


def value(name, rows):
    return measure(METRICS[name], tabulate(rows))


def by_view(rows, view):
    judged = [row for row in rows if row.judged]
    if view == "dropped":
        judged = [row for row in judged if row.outcome != "needs_review"]
    gold = [row.label == "unsafe" for row in judged]
    called = [row.outcome == "unsafe" for row in judged]
    if view == "wrong":
        called = [not g if row.outcome == "needs_review" else c
                  for row, g, c in zip(judged, gold, called, strict=True)]
    return gold, called


@pytest.mark.parametrize(
    ("view", "suffix"),
    [("wrong", ""), ("safe", "_invalid_safe"), ("dropped", "_invalid_dropped")])
def test_accuracy_and_f1_are_scikit_learns(rows, view, suffix):
    gold, called = by_view(rows, view)
    assert value(f"accuracy{suffix}", rows).value == pytest.approx(accuracy_score(gold, called))
    assert value(f"f1{suffix}", rows).value == pytest.approx(f1_score(gold, called))
    assert value(f"f1{suffix}", rows).n == len(gold)


def test_invalid_is_wrong_for_either_label(rows):
    judged = [row for row in rows if row.judged]
    right = np.mean([row.outcome == row.label for row in judged])
    assert value("accuracy", rows).value == pytest.approx(right)
    invalid = np.mean([row.outcome == "needs_review" for row in judged])
    assert 0 < invalid == pytest.approx(value("invalid_rate", rows).value)


def test_macro_f1_uses_accuracy_where_a_policy_has_no_positives(rows):
    scores = []
    for policy in sorted({row.policy_id for row in rows if row.judged}):
        part = [row for row in rows if row.policy_id == policy]
        gold, called = by_view(part, "wrong")
        scores.append(f1_score(gold, called) if any(gold) else accuracy_score(gold, called))
    assert not any(row.label == "unsafe" for row in rows if row.policy_id == "p0")
    assert value("macro_f1", rows).value == pytest.approx(np.mean(scores))


def brute_pss(rows):
    shares, count = [], 0
    for image in sorted({row.image_id for row in rows}):
        mine = [row for row in rows if row.image_id == image and row.judged]
        pairs = [(a, b) for a, b in itertools.combinations(mine, 2) if a.label != b.label]
        if pairs:
            shares.append(np.mean([a.right and b.right for a, b in pairs]))
        count += len(pairs)
    return np.mean(shares), count


def test_pss_is_the_definition(rows):
    expected, count = brute_pss(rows)
    result = value("pss", rows)
    assert result.value == pytest.approx(expected)
    assert result.n == count > 0


def test_consistency_is_the_definition(rows):
    shares = []
    for image in sorted({row.image_id for row in rows}):
        mine = [row for row in rows if row.image_id == image and row.judged]
        pairs = [(a, b) for a, b in itertools.combinations(mine, 2) if a.label == b.label]
        if pairs:
            shares.append(np.mean([a.outcome == b.outcome != "needs_review" for a, b in pairs]))
    assert value("consistency", rows).value == pytest.approx(np.mean(shares))


def test_pair_accuracy_is_the_definition(rows):
    cells = {}
    for row in rows:
        if row.judged:
            cells.setdefault((row.pair_id, row.policy_id), []).append(row)
    both = [all(row.right for row in pair) for pair in cells.values()]
    flips = [all(row.right for row in pair) for pair in cells.values()
             if pair[0].label != pair[1].label]
    assert value("pair_accuracy", rows).value == pytest.approx(np.mean(both))
    assert value("flip_pair_accuracy", rows).value == pytest.approx(np.mean(flips))
    assert value("flip_pair_accuracy", rows).n == len(flips)


def test_balanced_accuracy_is_scikit_learns(rows):
    assert value("balanced_accuracy", rows).value == pytest.approx(
        balanced_accuracy_score(*by_view(rows, "wrong")))


def test_per_and_pes_are_the_definition(rows):
    judged = [row for row in rows if row.judged]
    flagged = {row.image_id for row in judged if row.label == "unsafe"}
    rates = [row.right for row in judged if row.label == "safe" and row.image_id in flagged]
    rate, balanced = value("per", rows), value("balanced_accuracy", rows).value
    assert (rate.value, rate.n) == (pytest.approx(np.mean(rates)), len(rates))
    assert value("pes", rows).value == pytest.approx(2 / (1 / rate.value + 1 / balanced))


def test_always_safe_has_a_pes_of_two_thirds(rows):
    assert value("pes", always(rows, "safe")).value == pytest.approx(2 / 3)
    assert value("pes", always(rows, "unsafe")).value == 0


def test_rules_and_retention(rows):
    found = [row for row in rows if row.label == "unsafe" == row.outcome]
    exact = np.mean([row.cited_rules == row.rule_ids for row in found])
    assert value("rule_accuracy", rows).value == pytest.approx(exact)
    words = [row for row in rows if not row.judged]
    # white space is not content: the fake run answers "a  knife" for "a knife"
    assert value("retention", rows).value == pytest.approx(
        np.mean([row.output == "a  knife" for row in words]))
    assert value("caption_exact", rows).n + value("question_exact", rows).n == len(words)


@pytest.mark.parametrize("name", METRICS)
def test_whole_weights_mean_copies(rows, name):
    """A scene drawn twice counts as two scenes, a policy drawn twice as two policies."""
    cells = tabulate(rows)
    weights = Weights.ones(cells.axes)
    weights.clusters[0, :4] = [0, 2, 3, 1]
    copies = []
    for row in rows:
        times = int(weights.clusters[0, cells.axes.clusters.index(row.cluster)])
        for copy in range(times):
            tag = f"#{copy}"
            copies.append(Prediction(**{
                **vars(row), "example_id": row.example_id + tag,
                "image_id": row.image_id + tag, "pair_id": row.pair_id + tag}))
    weighted, _ = METRICS[name].compute(cells, weights)
    assert weighted[0] == pytest.approx(value(name, copies).value)


@pytest.mark.parametrize("name", ["pss", "f1", "accuracy", "pair_accuracy", "invalid_rate"])
def test_whole_policy_weights_mean_copies(rows, name):
    cells = tabulate(rows)
    weights = Weights.ones(cells.axes)
    weights.policies[0, :3] = [0, 2, 3]
    copies = []
    for row in rows:
        index = cells.axes.policies.index(row.policy_id) if row.judged else -1
        copies += [Prediction(**{**vars(row), "example_id": f"{row.example_id}#{copy}",
                                 "policy_id": f"{row.policy_id}#{copy}"})
                   for copy in range(int(weights.policies[0, index]))]
    weighted, _ = METRICS[name].compute(cells, weights)
    assert weighted[0] == pytest.approx(value(name, copies).value)


def test_a_perfect_and_a_constant_model():
    perfect = fake_predictions(skill=1.0, invalid=0.0)
    for name in ("accuracy", "f1", "macro_f1", "pss", "pair_accuracy", "consistency"):
        assert value(name, perfect).value == 1.0
    assert value("invalid_rate", perfect).value == 0.0


def test_nothing_to_measure_is_nan_not_zero():
    captions = [row for row in fake_predictions() if not row.judged]
    for name in ("accuracy", "f1", "macro_f1", "pss", "pair_accuracy", "consistency"):
        result = value(name, captions)
        assert np.isnan(result.value) and result.n == 0


def test_mixed_runs_and_crowded_pairs_are_refused(rows):
    with pytest.raises(ValueError, match="occurs twice"):
        tabulate(rows + fake_predictions(seed=1))
    third = [Prediction(**{**vars(row), "example_id": row.example_id + "x",
                           "image_id": row.image_id + "x"}) for row in rows]
    with pytest.raises(ValueError, match="a pair has two"):
        tabulate(rows + third)


def test_unknown_view_is_refused(rows):
    with pytest.raises(ValueError, match="counted wrong, safe or dropped"):
        cells = tabulate(rows)
        make_accuracy("guess")(cells, Weights.ones(Axes.of(rows)))
