"""Two models on the same rows: paired differences in the terminal, the results and the page."""

import numpy as np
import pytest

from guardjax.eval.records import load_predictions
from guardjax.eval.tables import load_results
from tests.data import dataset_files as files


def test_models_are_compared_in_pairs(said, tiny_model, tiny_pair, tmp_path):
    files.safe_edit_bench(tmp_path / "data")
    status, out, err = said(
        "eval", "--dataset", "safeeditbench", "--dir", tmp_path / "data", "--model", tiny_model,
        "--beside", tiny_pair, "--out", tmp_path / "out")
    assert status == 0, err
    name = f"{tiny_pair} − {tiny_model}"
    rows = load_predictions(tmp_path / "out/predictions.jsonl")
    right = [np.mean([row.right for row in rows if row.variant == str(model)])
             for model in (tiny_pair, tiny_model)]
    found = {row.metric: row for row in load_results(tmp_path / "out/results.json")
             if row.variant == name}
    assert {"f1", "accuracy", "macro_f1", "pss"} <= set(found) and "pair_accuracy" not in found
    assert found["accuracy"].value == pytest.approx(right[0] - right[1], abs=1e-6)
    assert all(0 < row.p <= 1 for row in found.values())
    assert f"Accuracy, {name}: " in out and ", p " in out
    page = (tmp_path / "out/report.html").read_text()
    assert "Differences" in page and "a permutation test" in page


@pytest.mark.parametrize("words, message", [
    (("--beside", "base"), "--beside compares models on a data set"),
    (("--dataset", "own", "--dir", ".", "--model", "base", "--beside", "base"), "a model twice"),
])
def test_what_cannot_be_compared_is_said(said, tmp_path, words, message):
    status, _, err = said("eval", *words, "--out", tmp_path / "out")
    assert status == 2 and message in err and not (tmp_path / "out").exists()
