"""The verb experiment with a trainer and a model that are functions, and the demo's parts."""

import dataclasses
import functools
import json
import pathlib
import sys
import types

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from guardjax.cli import (
    compose,
    cost,
    examples,
    measure,
    outcome,
    row_run,
    rows,
    training,
    world_answers,
)
from guardjax.cli.main import main
from guardjax.data.sources import SourceError
from guardjax.eval.records import load_predictions, predict_row
from guardjax.eval.tables import CHECKED_IN, HELD_OUT, load_results
from guardjax.policies import Label, format_verdict, make_splits, parse_verdict
from guardjax.train.config import ConfigError
from guardjax.train.guard import NonFiniteError
from guardjax.train.preemption import Preempted
from guardjax.train.workdir import WorkdirError, claim_workdir
from guardjax.world import builder, catalogue

PLAN = measure.Plan(policies=4, ladder=2, retention=2, held_out=2, controls=3, worlds=2)


@pytest.fixture(scope="module", name="cache")
def _cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module", name="splits")
def _splits():
    return make_splits(catalogue.vocabulary())


@pytest.fixture(name="fakes")
def _fakes(cache, monkeypatch):
    """A trainer that writes a folder, and a model that is right as often as its row's skill."""
    trained = []

    def train(run, folder, console):
        if run.stages[0].policies == "L1":
            raise SourceError("no edited pair gets opposite labels")
        trained.append((run.name, run.seed))
        folder = claim_workdir(folder, compose.claim_of(run))
        (folder / "model").mkdir(parents=True)
        (folder / "model" / "model.safetensors").write_text(f"{run.name} {run.seed}")
        lines, done = [], 0
        for stage in run.stages:
            lines += [{"step": done + step, "stage": stage.name, "rollout/tokens": 5.0,
                       "reward/total": 0.5, "rollout/right": 0.5, "sft/tokens": 4.0, "loss": 1.0,
                       "sft/likely_answers": 0.5} for step in (stage.steps // 2, stage.steps)]
            done += stage.steps
        (folder / "metrics.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
        return folder / "model"

    def answer(guard, questions, *, variant, seed, answered):
        skill = {"base": 0.5, "sft_varied": 0.7, "grpo_varied": 0.95}.get(variant, 0.6)
        rng = np.random.default_rng([seed, *variant.encode()])
        made = []
        for question in questions:
            e, right = question.example, rng.random() < skill
            text, verdict = e.answer if right else "nothing", None
            if e.label is not None:
                label = Label(e.label, e.rule_ids) if right else Label("safe")
                text = format_verdict(label)
                verdict = parse_verdict(text)
            made.append(predict_row(e, text, verdict, model=guard.model_hash, variant=variant,
                                    seed=seed, split=question.split))
        for start in range(0, len(made), 32):
            yield [row for place, row in enumerate(made[start:start + 32], start)
                   if place not in answered]

    monkeypatch.setenv("GUARDJAX_CACHE_DIR", str(cache))
    monkeypatch.setattr(measure, "FULL", PLAN)
    monkeypatch.setattr("guardjax.cli.training.train", train)
    monkeypatch.setattr("guardjax.train.compilation.enable_compile_cache", lambda: None)
    monkeypatch.setattr(row_run, "Guard", types.SimpleNamespace(
        load=lambda path: types.SimpleNamespace(
            model_hash=row_run.weights_hash(path), num_programs=1, num_buckets=1)))
    monkeypatch.setattr(world_answers, "ask_batches", answer)
    # The bootstrap has tests of its own.
    monkeypatch.setattr(
        outcome, "outcome_of", functools.partial(outcome.outcome_of, draws=20))
    return trained


def test_rows_have_configs_and_seeds():
    assert rows.chosen_rows(["matrix", "base", "sft_l3"]) == [*rows.MATRIX, "base"]
    level = rows.load_row("grpo_l5", 2, ["stages.*.steps=7"])
    assert (level.name, level.seed, level.stages[0].policies) == ("grpo_l5", 2, "L5")
    full = rows.load_row("describe_grpo_varied", 0, ["stages.*.steps=7"])
    assert [stage.steps for stage in full.stages] == [7, 7]
    assert dict(full.stages[0].data) == {"caption": 0.5, "question": 0.5}
    # One thing at a time: the second stage is the row without descriptions.
    assert rows.load_row("describe_grpo_varied", 0).stages[1] == \
        rows.load_row("grpo_varied", 0).stages[0]
    assert rows.seeds_of("base", (3,)) == (0,) and rows.seeds_of("sft_l3", (3,)) == (3,)
    assert len(rows.seeds_of("sft_varied")) == 5 and len(rows.seeds_of("exact_l3")) == 3
    assert set(rows.GROUPS["all"]) <= set(rows.names())
    with pytest.raises(ConfigError, match="row 'sft_l9'"):
        rows.load_row("sft_l9", 0)


def test_a_plan_asks_every_split_and_dev_never_looks_at_test(cache, splits):
    directory = measure.evaluation_world(cache, PLAN)
    found = measure.plan_questions(directory, splits, PLAN)
    controls = {f"test_{name}" for name in ("policy_shuffled", "image_removed", "in_words")}
    held_out = set(HELD_OUT) - set(measure.left_out(directory))
    assert {q.split for q in found} == {"test", "ladder"} | controls | held_out
    worlds = {split for split in measure.HELD_OUT_WORLDS if split in held_out}
    assert {q.split for q in found if q.example.kind == "caption"} == {"test"} | worlds
    test_ids = {policy.id for policy in splits.test}
    for split in worlds:
        ids = {q.example.policy_id for q in found if q.split == split and q.example.label}
        assert ids and ids <= test_ids
    dev = measure.plan_questions(
        measure.evaluation_world(cache, PLAN, "dev"), splits, PLAN, "dev")
    assert all(q.split == "ladder" or q.split.startswith("dev") for q in dev)
    assert not test_ids & {q.example.policy_id for q in dev}
    assert all(q.example.image_id.startswith("dev") for q in dev)


def test_sizes_of_the_plans():
    def size(p, test=True):
        main = 8 * p.policies + 10 * p.ladder + 4 * p.retention + 24 * p.controls
        return main + test * (24 * p.held_out + 36 * p.worlds)

    assert size(measure.SHORT) <= 400
    assert (size(measure.FULL), size(measure.FULL, test=False)) == (6100, 3100)


def test_without_the_font_the_artist_is_left_out_and_named(tmp_path, splits, monkeypatch):
    monkeypatch.setattr(builder, "noto_available", lambda: False)
    plan = dataclasses.replace(PLAN, policies=1, ladder=0, retention=0, controls=0, worlds=1)
    directory = measure.evaluation_world(tmp_path, plan)
    assert "font" in measure.left_out(directory)["test_artist"]
    asked = {q.split for q in measure.plan_questions(directory, splits, plan)}
    assert "test_artist" not in asked and "test_object" in asked


def test_cost_sums_stages_windows_and_attempts(tmp_path):
    run = rows.load_row("describe_grpo_varied", 0, [
        "stages.0.steps=3", "stages.1.steps=5", "stages.*.batch=4", "stages.1.rl.group_size=2"])
    lines = [{"step": 2, "stage": "describe", "sft/tokens": 10.0},
             {"step": 3, "stage": "describe", "sft/tokens": 20.0},
             {"step": 7, "stage": "grpo", "rollout/tokens": 3.0, "dynamic/drawn": 6.0},
             {"step": 8, "stage": "grpo", "rollout/tokens": 5.0}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    for _ in range(2):
        with cost.timed(tmp_path):
            sum(range(1000))
    with pytest.raises(KeyError), cost.timed(tmp_path):     # an attempt that failed counts too
        raise KeyError
    assert len((tmp_path / "attempts.jsonl").read_text().splitlines()) == 3
    spent = cost.cost_of(run, tmp_path)
    # A fifth of GRPO's 28 prompts are anchors, which have no label.
    assert (spent.steps, spent.pictures, spent.labels) == (8, 12 + 28, 22)
    assert spent.tokens == 4 * (2 * 10 + 20) + 2 * (24 * 3 + 4 * 5)
    assert spent.wall_seconds > 0
    cost.save_cost(tmp_path, spent)
    assert cost.load_cost(tmp_path) == spent
    (tmp_path / "metrics.jsonl").write_text('{"step": 8, "stage": "grpo"}\n')
    assert cost.cost_of(run, tmp_path).tokens is None


def test_a_row_is_trained_once_from_one_base_and_one_config(tmp_path, fakes, monkeypatch):
    run = row_run.RowRun(tmp_path, "sft_l3", 1)
    model = row_run.train_row(run)
    assert row_run.train_row(run) == model == run.folder / "model" and fakes == [("sft_l3", 1)]
    with pytest.raises(WorkdirError, match="stages.0.steps"):
        row_run.train_row(run, ["stages.0.steps=3"])
    monkeypatch.setattr(compose, "weights_hash", lambda path: "another")
    with pytest.raises(WorkdirError, match="seed1 holds .* is another now; remove the folder"):
        row_run.train_row(run)
    other = row_run.RowRun(tmp_path, "grpo_l3", 0)
    with pytest.raises(WorkdirError, match="seed1 holds .* grpo_l3 would start from another: rows"):
        row_run.train_row(other)
    assert fakes == [("sft_l3", 1)] and not other.folder.exists()


def test_one_process_a_row(tmp_path):
    run = row_run.RowRun(tmp_path, "sft_l3", 0)
    with row_run.alone(run) as first, row_run.alone(run) as second:
        assert first and not second
    with row_run.alone(run) as free:
        assert free


@pytest.mark.slow
def test_the_experiment_from_rows_to_report(tmp_path, fakes, capsys):
    words = ["experiment", "--out", str(tmp_path), "--rows",
             "base,sft_varied,grpo_varied,sft_l1,sft_l2", "--set", "stages.*.steps=4"]
    assert main([*words, "--seeds", "0,1"]) == 1
    shown = capsys.readouterr()
    assert "sft_l1 seed 0 cannot be trained: no edited pair" in shown.err
    assert "labels 128" in shown.out and "PSS, grpo_varied − sft_varied" in shown.out
    assert len(fakes) == 6
    looks = [json.loads(line) for line in (tmp_path / "looks.jsonl").read_text().splitlines()]
    assert len(looks) == 7 and looks[0]["row"] == "base" and looks[0]["model"]
    found = load_results(tmp_path / "results.json")
    splits = {row.split for row in found if row.variant == "grpo_varied"}
    assert {"test", "ladder", "ladder/ladder-L5", "test_in_words", "test_shapes"} <= splits
    assert {row.seed for row in found if row.variant == "sft_varied"} == {None, 0, 1}
    assert any(row.variant == "grpo_varied − sft_varied" for row in found)
    page = (tmp_path / "report.html").read_text()
    for text in ("GRPO, varied policies", "Trained on one level", "What training cost",
                 "always safe", "PSS where something is held out", "Learning curves",
                 "Edited pairs", "Controls", "Policy by policy",
                 "Confusion by category: GRPO, varied policies", "Verdicts by category: base"):
        assert text in page
    # Again: nothing is trained, nothing is asked, the same is shown.
    assert main([*words, "--seeds", "0,1", "--only-summarise"]) == 0
    assert main([*words, "--seeds", "0,1"]) == 1
    assert len(fakes) == 6 and len((tmp_path / "looks.jsonl").read_text().splitlines()) == 7
    assert str(load_results(tmp_path / "results.json")) == str(found)


def test_a_row_that_was_stopped_while_it_was_measured_goes_on(tmp_path, fakes, monkeypatch):
    words = ["experiment", "--rows", "base,sft_l3", "--seeds", "0", "--out"]
    assert main([*words, str(tmp_path / "whole")]) == 0
    answer, batches = world_answers.ask_batches, []

    def stopping(*args, **more):
        for batch in answer(*args, **more):
            batches.append(batch)
            if len(batches) == 3:
                raise KeyboardInterrupt
            yield batch

    out = tmp_path / "stopped"
    monkeypatch.setattr(world_answers, "ask_batches", stopping)
    with pytest.raises(KeyboardInterrupt):
        main([*words, str(out)])
    (kept,) = (out / "base/seed0/answers").iterdir()
    assert len(kept.read_text().splitlines()) == 1 + 64
    assert main([*words, str(out)]) == 0
    looks = [json.loads(line)["prompts"] for line in (out / "looks.jsonl").read_text().splitlines()]
    assert looks == [looks[2], looks[2] - 64, looks[2]]
    for row in ("base", "sft_l3"):
        folder = f"{row}/seed0"
        assert (out / folder / "predictions.jsonl").read_bytes() == (
            tmp_path / "whole" / folder / "predictions.jsonl").read_bytes()
        assert not list((out / folder / "answers").iterdir())
    assert (out / "results.json").read_bytes() == (tmp_path / "whole/results.json").read_bytes()


def test_dev_is_no_look_at_test(tmp_path, fakes):
    words = ["experiment", "--out", str(tmp_path), "--rows", "base,sft_l3", "--seeds", "0"]
    assert main([*words, "--split", "dev"]) == 0
    assert not (tmp_path / "looks.jsonl").exists() and not (tmp_path / "results.json").exists()
    assert (tmp_path / "results_dev.json").is_file() and (tmp_path / "report_dev.html").is_file()
    assert {row.split.split("_")[0] for row in load_predictions(
        tmp_path / "base/seed0/predictions_dev.jsonl")} == {"dev", "ladder"}


def test_refusals(tmp_path, fakes, capsys):
    words = ["experiment", "--out", str(tmp_path)]
    assert main([*words, "--rows", "nowhere"]) == 2
    assert main([*words, "--rows", "sft_l3", "--set", "stages.0.stepz=1"]) == 2
    assert main([*words, "--only-summarise"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("guardjax experiment: row 'nowhere'") and not fakes
    with pytest.raises(SystemExit):
        main([*words, "--seeds", "zero"])


def test_another_set_of_questions_is_left_out_not_mixed(tmp_path, fakes, capsys):
    words = ["experiment", "--out", str(tmp_path), "--rows", "base,sft_l3", "--seeds", "0"]
    assert main(words) == 0
    file = tmp_path / "sft_l3/seed0/measured_test.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"questions": "old"}))
    assert main([*words, "--only-summarise"]) == 0
    assert "sft_l3 seed 0 is left out" in " ".join(capsys.readouterr().out.split())
    assert "sft_l3" not in {row.variant for row in load_results(tmp_path / "results.json")}


def test_a_base_that_the_rows_did_not_start_from_is_left_out(tmp_path, fakes, capsys):
    words = ["experiment", "--out", str(tmp_path), "--rows", "base,sft_l3", "--seeds", "0"]
    assert main(words) == 0
    file = tmp_path / "base/seed0/measured_test.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"model": "old"}))
    assert main([*words, "--only-summarise"]) == 0
    assert "base is left out: old was measured" in " ".join(capsys.readouterr().out.split())
    assert "base" not in {row.variant for row in load_results(tmp_path / "results.json")}


@pytest.mark.parametrize("error, status, message", [
    (NonFiniteError("sft", 3, 2, pathlib.Path("kept")), 1, "sft_l3 seed 0 cannot be trained"),
    (Preempted(15), 143, "stopped by SIGTERM with everything saved"),
    (OSError(28, "No space left on device"), 1, "No space left on device"),
])
def test_what_stops_a_row_is_said(tmp_path, fakes, monkeypatch, capsys, error, status, message):
    real = training.train

    def train(run, folder, console):
        if run.name == "sft_l3":
            raise error
        return real(run, folder, console)

    monkeypatch.setattr(training, "train", train)
    words = ["experiment", "--out", str(tmp_path), "--rows", "sft_l3,sft_varied", "--seeds", "0"]
    assert main(words) == status
    assert message in " ".join(capsys.readouterr().err.split())
    # Numbers that are not finite spoil their own row only.
    assert fakes == ([("sft_varied", 0)] if isinstance(error, NonFiniteError) else [])


def test_checked_in_results_are_shown_under_their_label(tmp_path, fakes):
    assert outcome.checked_in(tmp_path / "results.json") is None
    assert main(["experiment", "--out", str(tmp_path), "--rows", "base,sft_varied,sft_l2",
                 "--seeds", "0"]) == 0
    full = outcome.checked_in(tmp_path / "results.json")
    assert {row.source for row in full.everything} == {CHECKED_IN}
    assert full.contrasts and all(row.variant != "sft_varied − base" for row in full.rows)
    assert full.main_variants == ["always_safe", "always_unsafe", "base", "sft_varied"]
    assert CHECKED_IN in outcome.matrix_figure(full, CHECKED_IN).title


def test_the_two_policies_disagree_about_both_pictures():
    first, second = (examples.true_verdicts(name) for name in examples.POLICIES)
    assert all(first[name] != second[name] for name in examples.PICTURES)
    assert set(first.values()) == {"safe", "unsafe"}
    for name in examples.PICTURES:
        assert Image.open(examples.example_file(name)).size == (64, 64)


def test_examples_are_judged_by_the_verb_itself(tmp_path, monkeypatch, capsys):
    class Guard:
        model_hash = "m1"

        @classmethod
        def load(cls, path, batch, **options):
            return cls()

        def answer(self, images, policy_text):
            return [("<answer>unsafe: R1</answer>", False), ("<answer>safe</answer>", False)]

    monkeypatch.setitem(sys.modules, "guardjax.eval.guard", types.SimpleNamespace(Guard=Guard))
    for _ in range(2):      # a second run is not refused for the verdicts of the first
        examples.judge_examples(Console(), tmp_path, tmp_path)
    assert capsys.readouterr().out.count("2 pictures: 1 safe, 1 unsafe, 0 to review") == 4
