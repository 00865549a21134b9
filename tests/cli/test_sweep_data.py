"""A sweep over a person's own pictures: measured on the split that the config names."""

import csv

import numpy as np
import pytest
from sklearn.metrics import accuracy_score

from guardjax.cli import row_run
from guardjax.eval.records import load_predictions
from tests.data import dataset_files as files

from .conftest import RUN, STAGE


def config_file(path, base, data, changes=("1e-3", "1e-2")):
    run = RUN | {"name": "own", "base": str(base), "stages": [{"kind": "sft"} | STAGE],
                 "dataset": {"format": "own", "dir": str(data), "report": "test",
                             "policy": str(data / "house.yaml")}}
    adds = "".join(f"    add({{'stages.0.optim.lr': {lr}}}, seed={seed})\n"
                   for lr in changes for seed in (0, 1))
    path.write_text(f"def get_config():\n    return {run!r}\n\n\ndef sweep(add):\n{adds}")
    return path


@pytest.fixture(name="untrained")
def _untrained(monkeypatch, tiny_model):
    """Trials whose training is somebody else's test: the base is their model."""
    trained = []

    def train_config(run, config, console=None):
        trained.append((run.row, run.seed))
        (run.folder / "metrics.jsonl").write_text('{"step": 12, "stage": "sft", "loss": 1.0}\n')
        row_run.save_cost(run.folder, row_run.cost_of(config, run.folder))
        return tiny_model

    monkeypatch.setattr(row_run, "train_config", train_config)
    return trained


def test_trials_are_measured_on_their_data(said, tiny_model, untrained, tmp_path):
    files.own(tmp_path / "own")
    path = config_file(tmp_path / "config.py", tiny_model, tmp_path / "own")
    out = tmp_path / "out"
    status, shown, err = said("sweep", "--config", path, "--out", out)
    assert status == 0, err
    assert "measured on test" in " ".join(shown.split()) and len(untrained) == 4
    with open(out / "summary.csv", encoding="utf-8") as file:
        lines = {line["Trial"]: line for line in csv.DictReader(file)}
    assert list(lines)[2:] == ["always_safe", "always_unsafe"]
    page = (out / "summary.html").read_text()
    assert "lr=0.001" in page and "always_unsafe" in page and "measured on test" in page
    rows = load_predictions(out / "lr=0.001/seed1/predictions_data.jsonl")
    assert {row.seed for row in rows} == {1} and {row.split for row in rows} == {"test"}
    gold = [row.label == "unsafe" for row in rows]
    called = [row.outcome == "unsafe" if row.outcome != "needs_review" else not label
              for row, label in zip(rows, gold, strict=True)]
    assert float(lines["lr=0.001"]["Accuracy"]) == pytest.approx(
        100 * accuracy_score(gold, called), abs=0.06)
    assert float(lines["always_unsafe"]["Accuracy"]) == pytest.approx(100 * np.mean(gold), abs=0.06)
    # What is measured is not measured again.
    untrained.clear()
    status, shown, _ = said("sweep", "--config", path, "--out", out, "--print-commands")
    assert status == 0 and not shown.strip()
    status, shown, _ = said("sweep", "--config", path, "--out", out, "--only-summarise")
    assert status == 0 and "measured on test" in " ".join(shown.split())


def test_data_that_cannot_be_compared_are_refused(said, tiny_model, untrained, tmp_path):
    files.own(tmp_path / "own")
    path = config_file(tmp_path / "config.py", tiny_model, tmp_path / "own")
    status, _, err = said("sweep", "--config", path, "--out", tmp_path / "out", "--split", "dev")
    assert status == 2 and "--split dev is of the policy world" in err
    whole = path.read_text()
    path.write_text(whole + "    add({'dataset.report': 'train'}, seed=0)\n")
    status, _, err = said("sweep", "--config", path, "--out", tmp_path / "out")
    assert status == 2 and "trials compare only on the same data" in err
    # Without a split to measure, what the training logs is compared.
    path.write_text(whole.replace("'report': 'test', ", ""))
    _, shown, _ = said("sweep", "--config", path, "--out", tmp_path / "out", "--print-commands")
    assert shown.count("guardjax sweep") == 4 and "--split" not in shown
    assert not untrained and not (tmp_path / "out").exists()
