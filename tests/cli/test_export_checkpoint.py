"""`guardjax export RUN --checkpoint`: the model that the run would have left had it ended there."""

import json
import shutil

import jax
import numpy as np
import pytest
from orbax.checkpoint import v1 as ocp

import guardjax.models as models
from guardjax.train.metrics import read_metrics

from .conftest import STAGE, write_config

# Constant, so that a run of fewer steps takes the same ones.
OPTIM = {"lr": 1e-2, "warmup_steps": 1, "schedule": "constant"}
CHECKPOINT = {"every_steps": 2, "keep": 9}
WHOLE, LORA, BEST = 2, 6, 4     # steps of the two stages, and of the run at its worst loss


def train(guardjax, folder, base, lora_steps, **checkpoint):
    """A stage of the weights, a stage of adapters; returns the run's folder."""
    stages = [STAGE | {"kind": "sft", "policies": "L3", "steps": WHOLE, "optim": OPTIM},
              STAGE | {"kind": "sft", "policies": "L3", "steps": lora_steps, "optim": OPTIM,
                       "name": "lora", "lora": {"rank": 2}}]
    config = write_config(folder / "config.py", name="two", base=str(base), stages=stages,
                          checkpoint=CHECKPOINT | checkpoint)
    assert guardjax("train", "--config", config, "--out", folder / "run") == 0
    return folder / "run"


@pytest.fixture(scope="module", name="run")
def _run(guardjax, tiny_model, tmp_path_factory):
    """A run whose best checkpoint is the first of its last stage; tests must not change it."""
    return train(guardjax, tmp_path_factory.mktemp("measured"), tiny_model, LORA,
                 best_metric="loss", best_mode="max")


@pytest.fixture(scope="module", name="stopped")
def _stopped(guardjax, tiny_model, tmp_path_factory):
    """A run that ends at that checkpoint."""
    return train(guardjax, tmp_path_factory.mktemp("stopped"), tiny_model, BEST - WHOLE)


@pytest.fixture(name="copied")
def _copied(run, tmp_path):
    return shutil.copytree(run, tmp_path / "copied")


def files(folder):
    return {str(file.relative_to(folder)) for file in folder.rglob("*")}


def weights(folder):
    return (folder / "model.safetensors").read_bytes()


@pytest.mark.slow
def test_the_best_is_the_model_of_a_run_that_ends_there(guardjax, run, stopped, tmp_path, capsys):
    loss = [line["loss"] for line in read_metrics(run / "metrics.jsonl")]
    assert sum(loss[2:4]) > max(sum(loss[4:6]), sum(loss[6:8])), "else the fixture is another one"
    before = files(run)
    out = tmp_path / "best"
    assert guardjax("export", run, "--checkpoint", "best", "--out", out) == 0
    assert weights(out) == weights(stopped / "model") != weights(run / "model")
    assert {file.name for file in out.iterdir()} == {
        "README.md", *(file.name for file in (stopped / "model").iterdir())}
    for name in ("tokenizer.json", "preprocessor_config.json"):
        assert (out / name).read_bytes() == (stopped / "model" / name).read_bytes()
    assert models.load_hf(out)[0] == models.load_hf(stopped / "model")[0]
    assert "| run, step 4, by" in (out / "README.md").read_text(encoding="utf-8")
    assert str(out) in capsys.readouterr().out
    assert files(run) == before and [path.name for path in tmp_path.iterdir()] == ["best"]


def test_the_latest_is_the_runs_own_model(guardjax, run, tmp_path):
    assert guardjax("export", run, "--checkpoint", "latest", "--out", tmp_path / "out") == 0
    assert weights(tmp_path / "out") == weights(run / "model")


def test_a_step_of_an_earlier_stage_is_what_the_next_one_found(guardjax, run, tmp_path):
    assert guardjax("export", run, "--checkpoint", str(WHOLE), "--out", tmp_path / "out") == 0
    _, params = models.load_hf(tmp_path / "out")
    jax.tree.map(np.testing.assert_array_equal, params,
                 ocp.load(run / "params" / "1", jax.tree.map(ocp_shape, params)))


def ocp_shape(leaf):
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)


def test_a_run_that_is_writing_is_left_alone(guardjax, copied, tmp_path):
    """A save under way, and a step whose copying broke off."""
    (copied / "checkpoints" / "10.orbax-checkpoint-tmp" / "state").mkdir(parents=True)
    (copied / "checkpoints" / "12" / "state").mkdir(parents=True)
    before = files(copied)
    assert guardjax("export", copied, "--checkpoint", "latest", "--out", tmp_path / "out") == 0
    assert weights(tmp_path / "out") == weights(copied / "model") and files(copied) == before


@pytest.fixture(name="refusal")
def _refusal(guardjax, tmp_path, capsys):
    """Exports, and returns the message, which must come with status 2 and no folder."""
    def refusal(folder, which="latest"):
        assert guardjax("export", folder, "--checkpoint", which, "--out", tmp_path / "out") == 2
        assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".out*"))
        return capsys.readouterr().err
    return refusal


def test_a_step_that_is_not_there_is_refused_with_those_that_are(refusal, run, copied):
    there = "there are 'best' and the steps 2, 4, 6, 8"
    assert f"has no checkpoint '5'; {there}" in refusal(run, "5")
    assert f"has no checkpoint 'newest'; {there}" in refusal(run, "newest")
    for measured in copied.glob("checkpoints/*/metrics"):
        shutil.rmtree(measured)
    assert "was measured: the best is that by checkpoint.best_metric, which this run did" in (
        message := refusal(copied, "best"))
    assert "Name a step: 2, 4, 6, 8" in message


def test_a_folder_without_checkpoints_is_refused(refusal, copied):
    shutil.rmtree(copied / "checkpoints")
    assert f"no complete checkpoint in {copied / 'checkpoints'}" in refusal(copied)
    assert not (copied / "checkpoints").exists()
    assert f"{copied / 'model'} is no run's folder: it has no config.txt" in refusal(
        copied / "model")


def test_checkpoints_of_another_run_are_refused(refusal, copied):
    config = copied / "config.txt"
    config.write_text(config.read_text().replace("stages.1.steps: 6", "stages.1.steps: 7"))
    message = refusal(copied)
    assert "the checkpoint of step 8 in " in message and "is of another run" in message
    assert "-1: lora (sft, 6 steps)" in message and "+1: lora (sft, 7 steps)" in message


def test_a_config_that_cannot_be_read_is_refused(refusal, copied):
    config = copied / "config.txt"
    text = config.read_text()
    config.write_text(text + "stages.0.of_another_version: 3\n")
    assert "unknown config key 'stages.0.of_another_version'" in refusal(copied)
    config.write_text(text + "half a line\n")
    assert "'half a line' is not 'key: value' with a value as JSON" in refusal(copied)


def test_another_base_is_refused(refusal, copied):
    kept = json.loads((copied / "base.json").read_text())["base"]
    (copied / "base.json").write_text('{"base": "0123"}')
    message = refusal(copied)
    assert "started from the model 0123" in message and f"is {kept} now" in message


def test_a_stage_whose_start_is_gone_is_refused(refusal, copied):
    shutil.rmtree(copied / "params" / "1")
    assert f"{copied / 'params/1'} is missing" in refusal(copied)
