"""Predictions: what is refused, and files that read back as they were written."""

import dataclasses

import pytest

from guardjax import atomic
from guardjax.eval.records import Prediction, load_predictions, predict_row, save_predictions
from guardjax.policies import parse_verdict
from guardjax.types import PolicyExample
from tests.eval.fake_run import fake_predictions

ROW = fake_predictions()[0]


@pytest.mark.parametrize("change", [
    {"label": "Safe"}, {"label": None}, {"label": "harmless"}, {"outcome": None},
    {"outcome": "yes"}, {"kind": "guess"}])
def test_values_outside_those_allowed_are_refused_by_name(change):
    with pytest.raises(ValueError, match=ROW.example_id):
        dataclasses.replace(ROW, **change)


def test_a_prediction_comes_from_an_example_and_a_verdict():
    example = PolicyExample("e1", "judge", "?", label="unsafe", rule_ids=("R1", "R2"),
                            image_id="i1", policy_id="p1", pair_id="d1")
    text = "<answer>unsafe: R2</answer>"
    row = predict_row(example, text, parse_verdict(text, ("R1", "R2")), model="m", variant="v",
                      seed=1, split="test")
    assert row.right and row.cited_rules == ("R2",) and row.cluster == "d1"
    caption = PolicyExample("e2", "caption", "?", answer="a knife")
    row = predict_row(caption, " a knife\n", None, model="m", variant="v", seed=1, split="test")
    assert row.right and row.outcome is None and row.image_id == "e2"
    broken = dataclasses.replace(example, label="unsure")
    with pytest.raises(ValueError, match="e1.*'unsure'"):
        predict_row(broken, text, parse_verdict(text), model="m", variant="v", seed=1, split="t")


def test_files_read_back_and_name_a_broken_line(tmp_path):
    rows = [*fake_predictions(), dataclasses.replace(ROW, output="\u2028 <b> \ud800 \x00")]
    path = tmp_path / "sub" / "predictions.jsonl"
    save_predictions(path, rows)
    assert load_predictions(path) == rows
    path.write_text(path.read_text() + '{"model": 1}\n')
    with pytest.raises(ValueError, match=f"line {len(rows) + 1}"):
        load_predictions(path)
    path.write_text("[1]\n")
    with pytest.raises(ValueError, match="line 1"):
        load_predictions(path)


def test_a_failed_write_keeps_the_earlier_file(tmp_path, monkeypatch):
    path = tmp_path / "results.json"
    atomic.write_text(path, "first")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(atomic.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        atomic.write_text(path, "second")
    assert path.read_text() == "first" and list(tmp_path.iterdir()) == [path]


def test_right_needs_the_label_itself():
    assert not dataclasses.replace(ROW, outcome="needs_review").right
    assert isinstance(ROW, Prediction) and dataclasses.replace(ROW, outcome=ROW.label).right
