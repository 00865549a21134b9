"""Tables of a data set: three views of invalid answers, edited pairs, constant guards."""

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score

from guardjax.data.datasets.record import DatasetError, to_example
from guardjax.data.datasets.registry import open_dataset
from guardjax.eval.dataset_results import category_rows, dataset_rows, dataset_tables
from guardjax.eval.records import Prediction, predict_row
from guardjax.eval.tables import layout
from guardjax.policies import parse_verdict
from tests.data import dataset_files as files

CONSTANT = ["always_safe", "always_unsafe"]


def answers(number=80, invalid=0.3, pairs=False):
    """Random verdicts to pictures under one of two policies."""
    rng = np.random.default_rng(5)
    rows = []
    for i in range(number):
        label = str(rng.choice(("safe", "unsafe")))
        outcome = ("needs_review" if rng.random() < invalid
                   else label if rng.random() < 0.7 else str(rng.choice(("safe", "unsafe"))))
        rows.append(Prediction(
            "m", "mine", 0, "test", f"e{i}", "judge", f"p{i // 2}", policy_id=f"L{i % 2}",
            pair_id=f"pair{i // 4}" if pairs else "", label=label, outcome=outcome,
            problem="no_answer" if outcome == "needs_review" else None))
    return rows


def tables_of(rows):
    found = dataset_rows(rows, {row.example_id: row.policy_id for row in rows}, draws=20)
    return {table.title: table for table in dataset_tables(found, "test")}


def test_three_views_stand_side_by_side():
    rows = answers()
    table = tables_of(rows)["Invalid answers, counted in three ways"]
    lines = {line.variant: line for line in layout(table.rows, table.variants, table.columns)}
    assert list(lines) == [*CONSTANT, "mine"] and not table.folded
    gold = np.array([row.label == "unsafe" for row in rows])
    valid = np.array([row.outcome != "needs_review" for row in rows])
    said = np.array([row.outcome == "unsafe" for row in rows])
    wrong = np.where(valid, said, ~gold)
    expected = [1 - valid.mean()]
    for score in (f1_score, accuracy_score):
        expected += [score(gold, wrong), score(gold, said), score(gold[valid], said[valid])]
    cells = lines["mine"].cells
    assert [cell.value for cell in cells] == pytest.approx(expected)
    assert len({round(value, 6) for value in expected}) == 7
    assert all(cell.low <= cell.value <= cell.high for cell in cells)


def test_views_that_are_one_are_folded():
    assert tables_of(answers(invalid=0))["Invalid answers, counted in three ways"].folded


def test_categories_have_the_constant_guards_too():
    rows = answers()
    found = category_rows(rows, {row.example_id: "ab"[i % 2] for i, row in enumerate(rows)},
                          draws=5)
    assert {(row.variant, row.split) for row in found} == {
        (variant, f"test/category {name}") for variant in (*CONSTANT, "mine") for name in "ab"}
    safe = next(row for row in found if row.variant == "always_safe")
    assert safe.value == 0 and safe.metric == "macro_f1"


def test_pairs_count_where_both_pictures_are_right():
    rows = answers(pairs=True)
    table = tables_of(rows)["Edited pairs"]
    (line,) = (line for line in layout(table.rows, table.variants, table.columns)
               if line.variant == "mine")
    pairs = {}
    for row in rows:
        pairs.setdefault((row.pair_id, row.policy_id), []).append(row)
    right = [all(row.right for row in pair) for pair in pairs.values()]
    differ = [len({row.label for row in pair}) == 2 for pair in pairs.values()]
    assert line.cells[0].value == pytest.approx(np.mean(right))
    assert line.cells[1].value == pytest.approx(np.mean(np.array(right)[differ]))
    assert "Edited pairs" not in tables_of(answers())


def test_pairs_that_were_built_are_read_as_pairs(tmp_path):
    """The folder of `guardjax pairs build`: an image folder with a column `pair_id`."""
    lines = []
    for pair in range(2):
        for role, label in (("before", "unsafe"), ("after", "safe")):
            name = f"images/{pair}-{role}.png"
            files.write_png(tmp_path / name, 2 * pair + (role == "after"))
            lines.append({"file_name": name, "image_path": name, "safety_label": label,
                          "policy_name": "house", "policy": "R1: no knives", "role": role,
                          "pair_id": f"scene{pair}", "instruction": "take it away"})
    files.write_jsonl(tmp_path / "metadata.jsonl", lines)
    with pytest.raises(DatasetError, match="has no splits; ask for 'all' in the place of 'test'"):
        open_dataset("safeeditbench", tmp_path)
    reader = open_dataset("safeeditbench", tmp_path, "all")
    rows = [predict_row(to_example(record), "", parse_verdict("<answer>safe</answer>"), model="m",
                        variant="m", seed=0, split="test") for record in reader.records]
    assert [row.cluster for row in rows] == ["scene0"] * 2 + ["scene1"] * 2
    found = dataset_rows(rows, {row.example_id: "house" for row in rows}, draws=5)
    (pair,) = (row for row in found if (row.variant, row.metric) == ("m", "pair_accuracy"))
    assert (pair.value, pair.n) == (0, 2)
