"""Heat map of policy pairs, confusion by category, curves: against loops and scikit-learn."""

import dataclasses
import io

import numpy as np
import pytest
from matplotlib.text import Text
from PIL import Image
from sklearn.metrics import confusion_matrix, roc_auc_score, roc_curve

from guardjax.eval.cells import tabulate_runs
from guardjax.eval.confusion import confusion_by_category, row_shares
from guardjax.eval.curves import drawable, score_curves, scores_of
from guardjax.eval.figures import display_width, heat_maps
from guardjax.eval.metrics import METRICS, measure
from guardjax.eval.policy_pairs import policy_pairs
from guardjax.eval.records import OUTCOMES, Prediction
from guardjax.eval.verdict_figures import (
    confusion_figures,
    confusion_tables,
    curve_figures,
    pair_figures,
)


def verdicts(seed, pictures=40, policies=5, variant="m", p_unsafe=False):
    rng = np.random.default_rng(seed)
    rows = []
    for picture in range(pictures):
        for policy in range(policies):
            if rng.random() < 0.2:
                continue
            label, outcome = str(rng.choice(["safe", "unsafe"])), str(rng.choice(OUTCOMES))
            rows.append(Prediction(
                model="m", variant=variant, seed=0, split="test", kind="judge", label=label,
                example_id=f"{picture}/{policy}", image_id=f"i{picture}", policy_id=f"p{policy}",
                outcome=outcome, p_unsafe=float(rng.random()) if p_unsafe else None))
    return rows


@pytest.mark.parametrize("seed", range(5))
def test_policy_pairs_are_those_of_a_loop(seed):
    rows = verdicts(seed)
    found = policy_pairs(rows)
    by_cell = {(row.image_id, row.policy_id): row for row in rows}
    images = {row.image_id for row in rows}
    for i, first in enumerate(found.policies):
        for j, second in enumerate(found.policies):
            both = [(by_cell[image, first], by_cell[image, second]) for image in images
                    if (image, first) in by_cell and (image, second) in by_cell]
            pairs = [(a, b) for a, b in both if a.label == "unsafe" and b.label == "safe"]
            right = [a.right and b.right for a, b in pairs]
            assert found.counts[i, j] == len(pairs)
            assert np.isnan(found.shares[i, j]) == (not pairs)
            if pairs:
                assert found.shares[i, j] == pytest.approx(np.mean(right), abs=1e-12)
    # As many pairs as the policy shift score is made of.
    (cells,) = tabulate_runs(rows).values()
    assert found.counts.sum() == measure(METRICS["pss"], cells).n


def test_policies_with_most_pairs_are_kept_and_names_can_be_groups():
    rows = verdicts(7)
    all_pairs, few = policy_pairs(rows), policy_pairs(rows, limit=3)
    total = all_pairs.counts.sum(axis=0) + all_pairs.counts.sum(axis=1)
    assert set(few.policies) == {all_pairs.policies[i] for i in np.argsort(-total)[:3]}
    grouped = policy_pairs(rows, {row.example_id: "ab"[row.policy_id > "p1"] for row in rows})
    assert grouped.policies == ("a", "b") and grouped.counts.sum() == all_pairs.counts.sum()


def test_both_verdicts_of_a_pair_are_of_one_seed():
    runs = [[dataclasses.replace(row, seed=seed) for row in verdicts(seed)] for seed in range(3)]
    apart, together = [policy_pairs(rows) for rows in runs], policy_pairs(sum(runs, []))
    counts = sum(found.counts for found in apart)
    right = sum(np.nan_to_num(found.shares) * found.counts for found in apart)
    np.testing.assert_array_equal(together.counts, counts)
    np.testing.assert_allclose(np.nan_to_num(together.shares) * counts, right, atol=1e-9)


def test_variants_asked_under_other_policies_have_a_figure_of_their_own():
    rows = verdicts(5, variant="a") + verdicts(6, variant="b") + verdicts(5, 40, 3, variant="c")
    first, second = pair_figures(rows)
    assert "a panel" in first.caption and " to " in first.caption
    assert "a panel" not in second.caption


def shape(png):
    return np.array(Image.open(io.BytesIO(png)).size)


def test_heat_maps_take_as_many_lines_as_they_need():
    names, values = ["L1", "L2", "L3", "L4", "L5"], np.eye(5)
    one, three, four = (shape(heat_maps({str(i): values for i in range(n)}, names, names))
                        for n in (1, 3, 4))
    np.testing.assert_allclose(three, one * [3, 1], atol=2)
    np.testing.assert_allclose(four, one * [3, 2], atol=2)
    png = heat_maps({"": values}, names, names)
    assert display_width(png) == round(shape(png)[0] / 160 * 84)


@pytest.mark.parametrize("name", ["$\\frac{$", "a" * 500, "two\nlines", "<script>", "_hidden"])
def test_any_name_can_be_drawn(name, monkeypatch):
    drawn = []
    monkeypatch.setattr(Text, "draw", lambda self, *args, real=Text.draw: (
        drawn.append(self.get_text()), real(self, *args)))
    width, height = shape(heat_maps({name: np.eye(2)}, [name, "b"], [name, "b"]))
    shown = " ".join(name.split())
    shown = shown if len(shown) < 41 else shown[:39] + "…"
    assert drawn.count(shown) >= 2 and width < 1600 and height < 1600
    drawn.clear()
    score_curves({name: scores_of(verdicts(4, p_unsafe=True))})
    assert shown in drawn, "in the legend"


def test_a_guard_of_pictures_alone_has_nothing():
    rows = [dataclasses.replace(row, outcome="safe") for row in verdicts(1)]
    shares = policy_pairs(rows).shares
    assert np.nansum(shares) == 0 and (~np.isnan(shares)).any()
    assert policy_pairs([]).policies == ()


def test_confusion_is_scikit_learns():
    rows = verdicts(3)
    category_of = {row.example_id: f"c{int(row.image_id[1:]) % 3}" for row in rows
                   if row.image_id != "i5"}
    found = confusion_by_category(rows, category_of)
    for name, counts in found.items():
        mine = [row for row in rows if category_of.get(row.example_id) == name]
        expected = confusion_matrix([row.label for row in mine], [row.outcome for row in mine],
                                    labels=OUTCOMES)
        np.testing.assert_array_equal(counts, expected[:2])
    assert sum(counts.sum() for counts in found.values()) == len(category_of)
    sizes = [counts.sum() for counts in found.values()]
    assert sizes == sorted(sizes, reverse=True)
    np.testing.assert_allclose(row_shares(np.array([[1, 2, 1], [0, 0, 0]])),
                               [[0.25, 0.5, 0.25], [np.nan] * 3])


def test_scores_are_the_finite_ones_in_order():
    rows = verdicts(2, p_unsafe=True)
    rows[3] = dataclasses.replace(rows[3], p_unsafe=float("nan"))
    rows[4] = dataclasses.replace(rows[4], p_unsafe=None)
    gold, p = scores_of(rows)
    kept = rows[:3] + rows[5:]
    assert gold.tolist() == [row.label == "unsafe" for row in kept]
    assert p.tolist() == [row.p_unsafe for row in kept]
    assert not len(scores_of(verdicts(2))[0])


def test_curves_are_drawn_from_scikit_learns_points(monkeypatch):
    gold, p = scores_of(verdicts(4, p_unsafe=True))
    drawn = []
    from matplotlib.axes import Axes
    plot = Axes.plot

    def kept(self, x, y, **options):
        drawn.append((np.asarray(x), np.asarray(y)))
        return plot(self, x, y, **options)
    monkeypatch.setattr(Axes, "plot", kept)
    png = score_curves({"a": (gold, p), "one label": (gold[gold], p[gold])})
    assert len(drawn) == 5, "two diagonals, three curves, none of one label alone"
    false, true, _ = roc_curve(gold, p)
    x, y = drawn[2]
    np.testing.assert_allclose(x, 100 * false)
    np.testing.assert_allclose(y, 100 * true)
    assert np.trapezoid(y, x) / 1e4 == pytest.approx(roc_auc_score(gold, p))
    x, y = drawn[4]     # bins of a tenth: mean of P, share of unsafe
    for place, low in enumerate(np.arange(10) / 10):
        mine = (p >= low) & (p < low + 0.1)
        assert x[place] == pytest.approx(100 * p[mine].mean())
        assert y[place] == pytest.approx(100 * gold[mine].mean())
    assert Image.open(io.BytesIO(png)).format == "PNG"
    assert not drawable({"one label": (gold[gold], p[gold])})
    with pytest.raises(ValueError, match="both labels"):
        score_curves({})


def test_every_variant_has_its_figures():
    rows = verdicts(5, variant="a", p_unsafe=True) + verdicts(5, variant="b", p_unsafe=True)
    category_of = {row.example_id: f"c{row.image_id[-1]}" for row in rows}
    (pairs,) = pair_figures(rows)
    count = policy_pairs(rows[:len(rows) // 2]).counts.sum()
    assert pairs.title == "Policy by policy"
    assert f" {count} pairs of verdicts a panel" in pairs.caption
    assert [f.title for f in confusion_figures(rows, category_of, {"b": "Bee"})] == [
        "Confusion by category: a", "Confusion by category: Bee"]
    (curves,) = curve_figures(rows, {"a": "Anna"})
    assert f"Anna {len(rows) // 2}" in curves.caption
    tables = confusion_tables(rows, category_of, {"a": "Anna"})
    assert tables[0].title == "Verdicts by category: Anna"
    assert sum(int(cell) for line in tables[0].lines for cell in line[1:]) == len(rows) // 2
    alone = verdicts(5, policies=1)
    assert not (pair_figures(alone) or curve_figures(alone) or confusion_figures(alone, {}))
    assert pair_figures(verdicts(5))[0].title == "Policy by policy"
