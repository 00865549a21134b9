"""`guardjax train` on real stages: equal twice, equal after being killed, never half a model."""

import errno
import json
import os
import re
import shutil
import signal

import jax
import numpy as np
import pytest
import safetensors

import guardjax.models as models
from guardjax.cli import compose, model_folder, training
from guardjax.data.tokenizer import Tokenizer
from guardjax.rewards.compose import Composition, Part
from guardjax.rewards.named import COMPOSITIONS
from guardjax.train.metrics import read_metrics
from .conftest import STAGE, write_config


class Killed(BaseException):
    """Stands for a power cut: nothing in the code under test may catch it."""


def outcome(folder):
    """All that a run leaves, but for what depends on the clock."""
    model = {file.name: file.read_bytes() for file in (folder / "model").iterdir()}
    logs = [read_metrics(folder / f"{name}.jsonl") for name in ("metrics", "samples", "groups")]
    return (*logs, model)


def act_at(monkeypatch, stage_name, step, act):
    """Calls `act` before a step of a stage."""
    real = training.make_stage

    def make(config, *others):
        stage = real(config, *others)
        if config.name == stage_name:
            original = stage.step

            def watched(bundle, batch):
                if bundle.clock.step == step:
                    act()
                return original(bundle, batch)

            stage.step = watched
        return stage

    monkeypatch.setattr(training, "make_stage", make)


@pytest.fixture(scope="module", name="straight")
def _straight(guardjax, config_file, tmp_path_factory):
    """The folder of a run that nothing interrupts; tests must not change it."""
    folder = tmp_path_factory.mktemp("runs") / "straight"
    assert guardjax("train", "--config", config_file, "--out", folder) == 0
    return folder


@pytest.fixture(name="unsaved")
def _unsaved(straight, tmp_path):
    """A copy of the run as it is after its last step, before its model is written."""
    folder = shutil.copytree(straight, tmp_path / "unsaved")
    shutil.rmtree(folder / "model")
    return folder


def test_it_trains_every_stage_and_writes_a_model(straight, tiny_model):
    metrics = read_metrics(straight / "metrics.jsonl")
    assert [(line["stage"], line["step"]) for line in metrics] == [
        *(("sft", step) for step in range(1, 13)), *(("grpo", step) for step in range(13, 25))]
    # A stage that changed nothing would be equal after any interruption.
    assert all(line["skipped"] == 0 and line["grad_norm"] > 0 for line in metrics)
    assert any(line["reward/total"] for line in metrics[12:])
    for line in read_metrics(straight / "metrics.jsonl", with_time=True):
        assert line["time/tokens_per_second"] > 0 and 0 < line["time/goodput"] < 1
        assert ("time/in_rollout" in line) == (line["stage"] == "grpo")
    cfg, before = models.load_hf(tiny_model)
    _, after = models.load_hf(straight / "model")
    assert cfg == models.load_hf(straight / "model")[0]
    np.testing.assert_array_equal(  # frozen
        before["visual"]["patch_embed"]["kernel"], after["visual"]["patch_embed"]["kernel"])
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), before["model"], after["model"])
    assert all(value > 0 for value in jax.tree.leaves(moved))


def test_what_it_sampled_can_be_looked_at(guardjax, straight, tmp_path, capsys):
    assert {"reward.png", "kl.png", "loss.png"} <= {f.name for f in (straight / "curves").iterdir()}
    kept = [(line["step"], len(line["answers"]))
            for line in read_metrics(straight / "groups.jsonl")]
    # Every second step of GRPO, all four prompts of the batch and all answers of each.
    assert kept == [(step, 2) for step in range(14, 25, 2) for _ in range(4)]
    assert guardjax("rollouts", straight, "--out", tmp_path / "page.html") == 0
    assert f"page: {tmp_path / 'page.html'}" in capsys.readouterr().out
    page = (tmp_path / "page.html").read_text()
    assert page.count('<article class="rollout"') == 24


def test_the_same_seed_gives_the_same_run_bit_for_bit(
        guardjax, config_file, straight, tmp_path, capsys):
    assert guardjax("train", "--config", config_file, "--out", tmp_path / "again") == 0
    assert outcome(tmp_path / "again") == outcome(straight)
    # One shape of batches occurs or a few; never as many as there are buckets.
    shown = " ".join(capsys.readouterr().err.split())
    number, buckets = re.search(r"compilations: (\d+) \(buckets: (\d+)\)", shown).groups()
    assert 3 <= int(number) <= int(buckets)


def test_a_run_stopped_and_killed_goes_on_bit_for_bit(
        guardjax, config_file, straight, tmp_path, monkeypatch, capsys):
    """Asked to stop in SFT; killed in GRPO, three steps after its newest checkpoint."""
    words = ("train", "--config", config_file, "--out", tmp_path / "run")
    with monkeypatch.context() as patch:
        act_at(patch, "sft", 10, lambda: os.kill(os.getpid(), signal.SIGTERM))
        assert guardjax(*words) == 128 + signal.SIGTERM
    assert "stopped by SIGTERM with everything saved; the same command goes on" in (
        capsys.readouterr().err)

    def cut():
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        act_at(patch, "grpo", 7, cut)
        guardjax(*words)
    assert "sft: resumed at step 11" in capsys.readouterr().err
    assert guardjax(*words) == 0
    assert "grpo: resumed at step 4" in capsys.readouterr().err
    assert outcome(tmp_path / "run") == outcome(straight)


def test_a_finished_run_says_so_and_trains_nothing(
        guardjax, config_file, straight, monkeypatch, capsys):
    before = outcome(straight)
    monkeypatch.setattr(training, "run_stages", lambda *_, **__: pytest.fail("trained again"))
    assert guardjax("train", "--config", config_file, "--out", straight) == 0
    shown = capsys.readouterr()
    assert "tiny: trained already" in shown.err and f"model: {straight / 'model'}" in shown.out
    assert outcome(straight) == before


def test_a_checkpoint_of_another_tokenizer_is_refused(
        guardjax, config_file, straight, unsaved, monkeypatch, capsys):
    """The model's folder was changed since: ids would mean other words."""
    words = ("train", "--config", config_file, "--out", unsaved)
    with monkeypatch.context() as patch:
        patch.setattr(Tokenizer, "digest", "another")
        assert guardjax(*words) == 1
    said = capsys.readouterr().err
    assert "is of another run" in said and "another tokenizer" in said
    assert "+sha256 another" in said and "put the tokenizer's files back" in said
    assert read_metrics(unsaved / "metrics.jsonl") == read_metrics(straight / "metrics.jsonl")


@pytest.mark.parametrize("failure, status, message", [
    (Killed(), None, ""),
    (safetensors.SafetensorError("I/O error: No space left on device (os error 28)"), 1,
     "the disk is full: could not write the model to"),
    (OSError(errno.ENOSPC, "No space left on device"), 1,
     "the disk is full: could not write the model to"),
])
def test_a_model_is_written_whole_or_not_at_all(
        guardjax, config_file, straight, unsaved, monkeypatch, capsys, failure, status, message):
    """The weights are there when it happens, the tokenizer is not."""
    words = ("train", "--config", config_file, "--out", unsaved)

    def fail(*_):
        raise failure

    with monkeypatch.context() as patch:
        patch.setattr(model_folder, "save_batcher", fail)
        if status is None:
            with pytest.raises(Killed):
                guardjax(*words)
        else:
            assert guardjax(*words) == status
            assert message in capsys.readouterr().err
    assert not (unsaved / "model").exists()
    assert guardjax(*words) == 0
    assert outcome(unsaved) == outcome(straight)
    assert not list(unsaved.glob("model.*"))


def test_half_a_model_is_put_aside_and_written_again(guardjax, config_file, straight, unsaved):
    """As a copy that broke off leaves it."""
    (unsaved / "model").mkdir()
    weights = shutil.copy(straight / "model" / "model.safetensors", unsaved / "model")
    assert guardjax("train", "--config", config_file, "--out", unsaved) == 0
    assert outcome(unsaved) == outcome(straight)
    assert (unsaved / "model.incomplete" / os.path.basename(weights)).is_file()


def test_a_model_is_never_written_over(straight, tiny_model):
    cfg, params = models.load_hf(tiny_model)
    batcher = compose.load_batcher(tiny_model)
    with pytest.raises(FileExistsError, match="model holds a model already"):
        model_folder.save_model(cfg, params, batcher, straight / "model")


def test_numbers_that_are_not_finite_end_the_run_with_its_state_kept(
        guardjax, config_file, tiny_model, tmp_path, capsys):
    cfg, params = models.load_hf(tiny_model)
    params["model"]["norm"]["scale"] = params["model"]["norm"]["scale"] * np.nan
    model_folder.save_model(cfg, params, compose.load_batcher(tiny_model), tmp_path / "nan")
    status = guardjax("train", "--config", config_file, "--out", tmp_path / "run",
                      f"base={tmp_path / 'nan'}")
    assert status == 1
    # One step late, so as not to wait for the device.
    assert "stage 'sft', step 3: the last 2 updates" in (message := capsys.readouterr().err)
    assert "giving up" in message
    assert [line["skipped"] for line in read_metrics(tmp_path / "run/metrics.jsonl")] == [1, 1]
    assert (tmp_path / "run/nonfinite/3").is_dir() and not (tmp_path / "run/model").exists()


@pytest.mark.parametrize("reward, problem", [
    (lambda examples, completions: 1 / 0, "raised ZeroDivisionError"),
    (lambda examples, completions: (np.ones(3), np.ones(3, bool)), "wanted 8 values"),
])
def test_a_broken_reward_ends_the_run_and_costs_no_step(
        guardjax, config_file, straight, tmp_path, monkeypatch, capsys, reward, problem):
    words = ("train", "--config", config_file, "--out", tmp_path)
    with monkeypatch.context() as patch:
        patch.setitem(COMPOSITIONS, "letters", Composition((Part("mine", reward),)))
        assert guardjax(*words) == 1
    assert "reward 'mine'" in (message := capsys.readouterr().err) and problem in message
    assert guardjax(*words) == 0
    assert outcome(tmp_path) == outcome(straight)


@pytest.mark.slow
def test_a_reward_of_ones_own_is_mended_where_it_stopped(
        guardjax, config_file, tiny_model, tmp_path, capsys):
    """It raises in its fourth step; that step is done again, by what the file says then."""
    counting = """
import numpy as np
steps = []
def mine(completions):
    steps.append(1)
    {broken}
    return [float(sum(map(str.isalpha, text))) for text in completions]
"""
    for name in ("straight", "mended"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine.py").write_text(counting.format(
            broken="1 / (4 - len(steps))" if name == "mended" else ""))
        words = ("train", "--config", config_file, "--out", tmp_path / name / "run",
                 "stages.0.steps=2", f"stages.1.rl.reward={tmp_path / name / 'mine.py'}:mine",
                 "stages.1.steps=8", "checkpoint.every_steps=100", "log.every_steps=3")
        assert guardjax(*words) == (1 if name == "mended" else 0)
    assert "reward 'mine': raised ZeroDivisionError" in capsys.readouterr().err
    assert (tmp_path / "mended/run/checkpoints/5").is_dir()
    (tmp_path / "mended/mine.py").write_text(counting.format(broken=""))
    assert guardjax(*words) == 0
    said = "".join(capsys.readouterr().err.split())     # long paths wrap, even within a name
    assert "resumedatstep3" in said and "mine.pyhaschangedsincethelaststart" in said
    assert len((tmp_path / "mended/run/rewards.jsonl").read_text().splitlines()) == 2
    assert outcome(tmp_path / "mended/run") == outcome(tmp_path / "straight/run")
    (tmp_path / "mended/mine.py").write_text("def mine(completions):\n    return completions\n")
    assert guardjax(*words) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "trained already" in said and "choose another folder to train with it" in said


@pytest.mark.slow
def test_a_reward_that_is_the_same_for_all_is_said(
        guardjax, config_file, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("guardjax.train.silence.SILENT_STEPS", 4)
    (tmp_path / "mine.py").write_text(
        "def mine(completions):\n    return [1.0] * len(completions)\n")
    assert guardjax("train", "--config", config_file, "--out", tmp_path / "run",
                    "stages.0.steps=2", "stages.1.steps=6",
                    f"stages.1.rl.reward={tmp_path / 'mine.py'}:mine") == 0
    said = capsys.readouterr().err
    assert said.count("teaches nothing") == 1 and "in the last 4 steps" in said


def test_adapters_lie_beside_the_model_and_make_it_of_the_base(
        guardjax, tiny_model, tmp_path):
    stages = [{"kind": "sft", "policies": "L3", "lora": {"rank": 2}} | STAGE | {"steps": 2}]
    config = write_config(tmp_path / "lora.py", name="lora", base=str(tiny_model), stages=stages,
                          memory={"scan_layers": True, "remat": "full"})
    assert guardjax("train", "--config", config, "--out", tmp_path / "run") == 0
    adapter = tmp_path / "run" / "adapter" / "sft"
    said = json.loads((adapter / "adapter_config.json").read_text())
    assert (said["r"], said["base_model_name_or_path"]) == (2, str(tiny_model))
    assert guardjax("export", tiny_model, "--adapter", adapter, "--out", tmp_path / "merged") == 0
    _, before = models.load_hf(tiny_model)
    trained, merged = (models.load_hf(path)[1] for path in (tmp_path / "run" / "model",
                                                            tmp_path / "merged"))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7), trained,
                 merged)
    kernels = [tree["model"]["layers_0"]["mlp"]["up_proj"]["kernel"] for tree in (before, merged)]
    assert not np.array_equal(*kernels)
    stages[0]["lora"]["targets"] = ["patch_embed"]
    write_config(config, name="lora", base=str(tiny_model), stages=[stages[0] | {"freeze": ()}])
    assert guardjax("train", "--config", config, "--out", tmp_path / "other") == 2
