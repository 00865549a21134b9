"""Templates and ways of scoring from the command line: kept with the model, refused where wrong."""

import json

import pytest
from PIL import Image
from rich.console import Console

from guardjax.cli.calibration_table import show_calibration
from guardjax.data.batching import TEMPLATE_FILE, load_batcher
from guardjax.eval.records import Prediction

from .conftest import STAGE, write_config
from .test_eval_and_demo import POLICY, rows


@pytest.fixture(name="place")
def _place(tmp_path):
    (tmp_path / "policy.yaml").write_text(POLICY)
    Image.new("RGB", (64, 64), (200, 30, 30)).save(tmp_path / "a.png")
    Image.new("RGB", (64, 64), (30, 200, 30)).save(tmp_path / "b.png")
    return tmp_path


def test_a_template_is_trained_kept_and_asked_for(guardjax, tiny_model, place, capsys):
    stage = {"kind": "sft", "policies": "L3"} | STAGE | {"steps": 0, "optim": {}}
    config = write_config(place / "first.py", name="first", base=str(tiny_model), stages=[stage],
                          template="policy_first")
    assert guardjax("train", "--config", config, "--out", place / "run") == 0
    model = place / "run" / "model"
    assert json.loads((model / TEMPLATE_FILE).read_text()) == {"template": "policy_first"}
    assert load_batcher(model).template == "policy_first"
    assert not (tiny_model / TEMPLATE_FILE).exists()
    judge = ("judge", place / "a.png", "--policy", place / "policy.yaml", "--out", place / "out")
    for folder, asked in ((model, "image_first"), (tiny_model, "policy_first")):
        assert guardjax(*judge, "--model", folder, "--template", asked) == 2
        assert f"asked with '{asked}' it would read prompts in an order that it never saw" in (
            capsys.readouterr().err)


def test_judge_scores_by_probability_and_says_so(guardjax, tiny_model, place, capsys):
    """One file is of one scoring; a threshold that all pass, and a mass that none has."""
    def judge(*options, out="out.jsonl"):
        status = guardjax(
            "judge", place / "a.png", place / "b.png", "--policy", place / "policy.yaml",
            "--model", tiny_model, "--out", place / out, "--batch-size", 2, "--scoring",
            "probability", *options)
        return status, [json.loads(line) for line in (place / out).read_text().splitlines()]

    status, found = judge("--min-mass", 0, "--threshold", 0)
    assert status == 0 and [row["decision"] for row in found] == ["unsafe", "unsafe"]
    assert all(0 < row["p_unsafe"][0] < 1 for row in found)
    assert {row["scoring"] for row in found} == {"probability threshold=0 margin=0 min_mass=0"}
    status, found = judge("--min-mass", 1, out="other.jsonl")
    assert status == 1
    assert {(row["decision"], row["status"]) for row in found} == {
        ("needs_review", "invalid:mass_outside")}
    capsys.readouterr()
    assert guardjax("judge", place / "a.png", "--policy", place / "policy.yaml", "--model",
                    tiny_model, "--out", place / "out.jsonl") == 2
    assert "verdicts under another scoring" in capsys.readouterr().err
    assert guardjax("judge", place / "a.png", "--policy", place / "policy.yaml", "--model",
                    tiny_model, "--out", place / "out.jsonl", "--threshold", 0.4) == 2
    assert "threshold=0.4 is for scoring 'probability'" in capsys.readouterr().err


def test_eval_by_probability_is_calibrated(guardjax, tiny_model, place, capsys):
    status = guardjax("eval", "--model", tiny_model, "--policies", place / "policy.yaml",
                      "--pairs", 2, "--scoring", "probability", "--out", place / "eval")
    assert status == 0
    found = rows(place / "eval")
    assert len(found) == 4 and all(0 < row["p_unsafe"] < 1 for row in found)
    constant, split = json.loads((place / "eval" / "calibration.json").read_text())["splits"]
    assert split["split"] == "test" and split["n"] == 4
    assert constant["split"] == "constant, test" and len(split["intervals"]["brier"]) == 2
    assert "P(unsafe)" in capsys.readouterr().out
    assert "TPR at FPR 1%" in (place / "eval" / "report.html").read_text()


def test_a_data_set_scored_by_probability_has_curves_and_calibration(guardjax, tiny_model, place):
    (place / "own").mkdir()
    for name in ("a.png", "b.png"):
        (place / name).rename(place / "own" / name)
    (place / "own" / "images.csv").write_text("image,label\na.png,safe\nb.png,unsafe\n")
    status = guardjax("eval", "--model", tiny_model, "--dataset", "own", "--dir", place / "own",
                      "--policies", place / "policy.yaml", "--split", "all", "--scoring",
                      "probability", "--out", place / "eval")
    assert status == 0
    constant, split = json.loads((place / "eval" / "calibration.json").read_text())["splits"]
    assert (split["split"], split["n"]) == ("all", 2) and split["auroc"] in (0, 0.5, 1)
    assert (constant["auroc"], constant["brier"]) == (0.5, 0.25)
    page = (place / "eval" / "report.html").read_text()
    assert "TPR at FPR 1%" in page and "P(unsafe) as a score" in page


def test_every_variant_is_calibrated_by_itself(tmp_path):
    rows = [Prediction(model="m", variant=variant, seed=0, split="test", example_id=str(i),
                       kind="judge", image_id=str(i), label=("safe", "unsafe")[i % 2],
                       outcome="safe", p_unsafe=(i % 2 == right) * 0.5 + 0.01 * i)
            for variant, right in (("good", 1), ("bad", 0)) for i in range(10)]
    table, = show_calibration(Console(quiet=True), rows, tmp_path)
    assert [(*line[:2], line[2][:5]) for line in table.lines] == [
        ("constant, test", "10", "0.500"), ("good, test", "10", "1.000"),
        ("bad, test", "10", "0.000")]
    assert "[1.000–1.000]" in table.lines[1][2]
    alone, = show_calibration(Console(quiet=True), rows[:10], tmp_path)
    assert [line[0] for line in alone.lines] == ["constant, test", "test"]
