"""`guardjax eval` and `guardjax demo` from end to end, on a tiny model and a tiny world."""

import base64
import dataclasses
import json

import pytest
from rich.console import Console

from guardjax.cli import compose, demo, measure, training
from guardjax.train.config import resolve
from guardjax.train.workdir import claim_workdir

from .conftest import RL, STAGE, write_config

POLICY = ("schema: 1\nid: no-weapons\nversion: '1'\ntitle: No weapons\n"
          "rules:\n  - id: R1\n    when: weapons\n")


@pytest.fixture(name="policy")
def _policy(tmp_path):
    (tmp_path / "policy.yaml").write_text(POLICY)
    return tmp_path / "policy.yaml"


def rows(folder):
    return [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]


def test_eval_under_a_policy_of_ones_own(guardjax, tiny_model, policy, tmp_path, capsys):
    status = guardjax("eval", "--model", tiny_model, "--policies", policy, "--pairs", 2,
                      "--out", tmp_path / "out")
    assert status == 0
    assert [row["label"] in ("safe", "unsafe") for row in rows(tmp_path / "out")] == [True] * 4
    assert (tmp_path / "out/results.json").stat().st_size
    assert "data:image/png;base64," in (tmp_path / "out/report.html").read_text()
    shown = capsys.readouterr().out
    assert "test" in shown and "4 prompts, compilations: 1 (buckets: 10)" in shown


def test_eval_of_the_test_policies_tells_the_controls_too(guardjax, tiny_model, tmp_path, capsys):
    """Above all the PSS with the picture in words: what a model that sees everything could do."""
    assert guardjax("eval", "--model", tiny_model, "--pairs", 1, "--out", tmp_path) == 0
    shown = capsys.readouterr().out
    for title in ("Controls: PSS", "PSS where something is held out"):
        assert title in shown and title in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize("broken, message", [
    ({"--model": "nowhere"}, "nowhere"),
    ({"--policies": "nowhere.yaml"}, "nowhere.yaml: no such file"),
    ({"--out": "/proc/nowhere"}, "/proc/nowhere"),
    ({"--split": "validation"}, "split 'validation' does not exist; choose from train"),
])
def test_eval_says_what_is_wrong(guardjax, tiny_model, policy, tmp_path, capsys, broken, message):
    words = {"--model": tiny_model, "--policies": policy, "--pairs": 1} | broken
    status = guardjax(
        "eval", "--out", tmp_path / "out", *(word for pair in words.items() for word in pair))
    assert status == 2 and message in capsys.readouterr().err.partition("guardjax eval: ")[2]
    assert not (tmp_path / "out").exists()


def test_eval_names_line_and_key_of_a_bad_policy(guardjax, tiny_model, policy, tmp_path, capsys):
    policy.write_text(POLICY + "    colour: red\n")
    assert guardjax("eval", "--model", tiny_model, "--policies", policy, "--out", tmp_path) == 2
    assert "policy.yaml:8" in (message := capsys.readouterr().err) and "colour" in message


def test_demo_trains_measures_and_reports(guardjax, tiny_model, tmp_path, monkeypatch, capsys):
    real = compose.model_dir
    monkeypatch.setattr(
        compose, "model_dir", lambda name: tiny_model if name == "base" else real(name))
    monkeypatch.setattr(demo, "TRAIN_PAIRS", 40)
    monkeypatch.setattr(measure, "SHORT", measure.Plan(policies=4, ladder=2, retention=2))
    for name in demo.STEPS:
        kind, policies = name.split("_")
        stage = {"kind": kind, "policies": policies.replace("l3", "L3")} | STAGE
        if kind == "grpo":
            stage["rl"] = RL
        write_config(tmp_path / f"{name}.py", name=name, base=str(tiny_model), stages=[stage])
    words = ("demo", "--configs", tmp_path, "--out", tmp_path / "out", "--steps-scale", 0.01,
             "--full-results", tmp_path / "none.json")
    assert guardjax(*words) == 0
    shown = capsys.readouterr().out.replace("\n", "")      # long paths are wrapped
    for text in ("PSS", "report.html", "(true: ", "2 pictures: "):
        assert text in shown
    assert {row["variant"] for row in rows(tmp_path / "out")} == {"base", *demo.STEPS}
    report = (tmp_path / "out/report.html").read_text()
    assert "GRPO, varied policies" in report and (tmp_path / "out/results.json").is_file()
    for text in ("Policy by policy", "Confusion by category: SFT, varied policies",
                 "Verdicts by category: base", "Learning curves", "Model GRPO, one policy (L3)"):
        assert text in report
    pictures = sorted((tmp_path / "out/figures").iterdir())
    assert [path.name[10:].removesuffix(".png") for path in pictures] == [
        "policy-by-policy", "confusion-by-category-base",
        "confusion-by-category-sft-varied-policies", "confusion-by-category-grpo-varied-policies",
        "learning-curves"]
    assert all(base64.b64encode(path.read_bytes()).decode() in report for path in pictures)
    for name in demo.STEPS:
        assert (tmp_path / "out" / name / "model" / "model.safetensors").is_file()


def test_demo_trains_again_from_another_model_or_config_and_says_so(
        tiny_model, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(training, "train", lambda run, folder, console: claim_workdir(
        folder, compose.claim_of(run)))

    def shown(**changes):
        demo._train(Console(width=200), dataclasses.replace(run, **changes), tmp_path / "a")
        return capsys.readouterr().out

    run = resolve({"name": "a", "base": str(tiny_model), "stages": [{"kind": "sft", "steps": 4}]})
    assert shown() == shown() == ""
    (tmp_path / "a" / "mine").touch()
    assert "from another model or config: kept as a.old1, trained again" in shown(seed=1)
    assert (tmp_path / "a.old1" / "mine").exists() and not (tmp_path / "a" / "mine").exists()
    monkeypatch.setattr(compose, "weights_hash", lambda path: "another")
    assert "kept as a.old2, trained again" in shown(seed=1)
    assert shown(seed=1) == ""


def test_demo_says_what_is_wrong(guardjax, tmp_path, capsys):
    status = guardjax("demo", "--configs", tmp_path, "--out", tmp_path / "out")
    assert status == 2
    assert "guardjax demo: row 'sft_l3': config file" in capsys.readouterr().err


def test_eval_refuses_a_policy_that_does_not_fit_before_anything_is_written(
        guardjax, tiny_model, tmp_path, capsys):
    rules = "".join(f"  - id: R{i}\n    when: weapons\n" for i in range(1, 200))
    (tmp_path / "long.yaml").write_text(POLICY[:POLICY.index("  - id")] + rules)
    status = guardjax("eval", "--model", tiny_model, "--policies", tmp_path / "long.yaml",
                      "--pairs", 1, "--out", tmp_path / "out")
    assert status == 2 and not (tmp_path / "out").exists()
    assert "Nothing is truncated" in capsys.readouterr().err
