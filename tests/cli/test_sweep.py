"""The verb sweep: with a trainer and a model that are functions, and once for real."""

import csv
import json
import shlex
import types

import pytest

from guardjax.cli import compose, measure, row_run, training, world_answers
from guardjax.cli.main import main
from guardjax.cli.trials import load_trials
from guardjax.data.sources import SourceError
from guardjax.eval.records import predict_row
from guardjax.policies import Label, format_verdict, parse_verdict
from guardjax.train.config import ConfigError
from guardjax.train.workdir import claim_workdir
from tests.cli.conftest import RUN, STAGE

PLAN = measure.Plan(policies=4, ladder=2, retention=2)
TRIALS = """
def sweep(add):
    for lr in (1e-3, 1e-2):
        for seed in (0, 1):
            add({"stages.0.optim.lr": lr}, seed=seed)
    add()
"""


def config_file(tmp_path, sweep=TRIALS, **run):
    run = RUN | {"name": "swept", "stages": [STAGE | {"kind": "sft"}]} | run
    path = tmp_path / "swept.py"
    path.write_text(f"def get_config():\n    return {run!r}\n{sweep}")
    return path


def places(path, overrides=()):
    return [trial.place for trial in load_trials(str(path), overrides)]


def test_trials_are_named_by_what_they_change(tmp_path):
    path = config_file(tmp_path)
    assert places(path) == ["lr=0.001/seed0", "lr=0.001/seed1", "lr=0.01/seed0", "lr=0.01/seed1",
                            "as_it_is/seed0"]
    trial = load_trials(str(path), ["stages.0.steps=3"])[3]
    assert (trial.config.stages[0].optim.lr, trial.config.seed) == (0.01, 1)
    assert trial.config.stages[0].steps == 3 and trial.changes == {"stages.0.optim.lr": 0.01}


def test_two_keys_that_end_alike_are_told_apart(tmp_path):
    sweep = """
def sweep(add):
    add({"stages.0.batch": 2, "stages.1.batch": 8, "stages.0.data": {"judge": 1.0}})
    add({"stages.0.batch": 4, "base": "a/b c"})
"""
    path = config_file(tmp_path, sweep, stages=[STAGE | {"kind": "sft", "name": name}
                                                for name in ("one", "two")])
    assert places(path) == ["0.batch=2,1.batch=8,data=_judge_1.0_/seed0",
                            "0.batch=4,base=a_b_c/seed0"]


@pytest.mark.parametrize("sweep, message", [
    ("", r"does not define sweep\(add\)"),
    ("def sweep(add): pass", "adds no trial"),
    ("def sweep(add):\n add(seed=1)\n add(seed=1)", "trials 0 and 1 of .* are both as_it_is/seed1"),
    ("def sweep(add):\n add()\n add({'stages.0.optim.rate': 1})",
     r"trial 1 of .* \(stages.0.optim.rate=1\): .*'stages\.0\.optim\.rate'"),
    ("def sweep(add):\n add({'stages.0.batch': 'many'})", "stages.0.batch must be"),
    ("def sweep(add):\n add({'base': 'x' * 200})", "has a name of 205 characters, at most 120"),
])
def test_a_sweep_that_is_wrong_is_refused_before_training(tmp_path, sweep, message):
    with pytest.raises(ConfigError, match=message):
        load_trials(str(config_file(tmp_path, sweep)))


@pytest.fixture(name="trained")
def _trained(tmp_path_factory, monkeypatch):
    """A trainer that writes a folder, and a model that is right where its rate is small."""
    done = []

    def train(run, folder, console):
        lr = run.stages[0].optim.lr
        if lr == 1e-2 and run.seed == 1:
            raise SourceError("no edited pair gets opposite labels")
        done.append((lr, run.seed))
        folder = claim_workdir(folder, compose.claim_of(run))
        (folder / "model").mkdir()
        (folder / "model" / "model.safetensors").write_text(f"{lr} {run.seed}")
        (folder / "metrics.jsonl").write_text(json.dumps(
            {"step": run.stages[0].steps, "stage": "sft", "loss": lr, "sft/tokens": 4.0}) + "\n")
        return folder / "model"

    def answer(guard, questions, *, variant, seed, answered):
        assert not answered
        rows = []
        for place, question in enumerate(questions):
            e = question.example
            right = variant == "lr=0.001" or place % 2
            text, verdict = e.answer if right else "nothing", None
            if e.label is not None:
                text = format_verdict(Label(e.label, e.rule_ids) if right else Label("safe"))
                verdict = parse_verdict(text)
            rows.append(predict_row(e, text, verdict, model=guard.model_hash, variant=variant,
                                    seed=seed, split=question.split))
        yield rows

    monkeypatch.setenv("GUARDJAX_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.setattr(measure, "FULL", PLAN)
    monkeypatch.setattr(training, "train", train)
    monkeypatch.setattr("guardjax.train.compilation.enable_compile_cache", lambda: None)
    monkeypatch.setattr(row_run, "Guard", types.SimpleNamespace(
        load=lambda path: types.SimpleNamespace(
            model_hash=row_run.weights_hash(path), num_programs=1, num_buckets=1)))
    monkeypatch.setattr(world_answers, "ask_batches", answer)
    return done


def sweep(path, out, *more):
    return main(["sweep", "--config", str(path), "--out", str(out), *more])


def test_a_sweep_trains_measures_and_goes_on(tmp_path, trained, capsys):
    path, out = config_file(tmp_path), tmp_path / "out"
    assert sweep(path, out, "--metrics", "loss,nowhere") == 1
    shown = capsys.readouterr()
    assert "lr=0.01/seed1 cannot be trained: no edited pair" in shown.err
    assert trained == [(1e-3, 0), (1e-3, 1), (1e-2, 0), (1e-2, 0)]      # the last: as it is
    with open(out / "summary.csv", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert [(line["Trial"], line["Seeds finished"], line["Seeds"]) for line in lines] == [
        ("lr=0.001", "2", "2"), ("lr=0.01", "1", "2"), ("as_it_is", "1", "1"),
        ("always_safe", "0", "0"), ("always_unsafe", "0", "0")]
    assert float(lines[0]["PSS"]) == 100 > float(lines[1]["PSS"])
    assert [line["PSS"] for line in lines[3:]] == ["0.0", "0.0"], "one answer never flips"
    assert all(float(line["Pair acc."]) > 0 for line in lines[3:])
    assert [line["loss"] for line in lines] == ["0.001", "0.01", "0.01", "–", "–"]
    assert {line["nowhere"] for line in lines} == {"–"}
    assert not (out / "looks.jsonl").exists(), "dev is not test"

    trained.clear()
    assert sweep(path, out, "--only", "lr=0.001/seed0", "--only-summarise") == 0
    assert sweep(path, out, "--only", "lr=0.001/seed0") == 0
    assert not trained, "what is finished is not done again"


def test_commands_are_of_what_is_left(tmp_path, trained, capsys):
    path, out = config_file(tmp_path), tmp_path / "a folder"
    assert sweep(path, out, "--only", "lr=0.001/seed1", "--split", "none", "guard.max_bad_steps=3"
                 ) == 0
    assert trained == [(1e-3, 1)] and not list(out.glob("*/seed1/predictions*"))
    capsys.readouterr()
    sweep(path, out, "--split", "none", "--print-commands", "guard.max_bad_steps=3")
    commands = [shlex.split(line) for line in capsys.readouterr().out.splitlines()]
    assert [command[command.index("--only") + 1] for command in commands] == [
        "lr=0.001/seed0", "lr=0.01/seed0", "lr=0.01/seed1", "as_it_is/seed0"]
    assert main(commands[0][1:]) == 0 and trained == [(1e-3, 1), (1e-3, 0)]
    assert sweep(path, out, "--list") == 0


def test_nothing_there_and_a_trial_that_is_not(tmp_path, capsys):
    path = config_file(tmp_path)
    assert sweep(path, tmp_path / "out", "--only-summarise") == 2
    assert "nothing in" in capsys.readouterr().err
    assert sweep(path, tmp_path / "out", "--only", "lr=7/seed0") == 2
    assert "--only lr=7/seed0: no such trial" in capsys.readouterr().err


@pytest.mark.slow
def test_a_real_sweep(tmp_path, tiny_model, capsys):
    two = "def sweep(add):\n    for lr in (1e-3, 1e-2):\n        add({'stages.0.optim.lr': lr})\n"
    path = config_file(tmp_path, two, base=str(tiny_model))
    assert sweep(path, tmp_path / "out", "--split", "none", "--metrics", "loss",
                 "stages.0.steps=2") == 0
    assert "lr=0.001" in capsys.readouterr().out
    with open(tmp_path / "out" / "summary.csv", encoding="utf-8") as file:
        losses = [float(line["loss"]) for line in csv.DictReader(file)]
    assert len(losses) == 2 and min(losses) > 0 and losses[0] != losses[1]
    assert all((tmp_path / "out" / name / "seed0" / "model" / "model.safetensors").is_file()
               for name in ("lr=0.001", "lr=0.01"))
