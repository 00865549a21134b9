"""TensorBoard files that TensorBoard reads; Weights & Biases by its own calls."""

import importlib.util
import sys
import types

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from guardjax.train import loggers
from guardjax.train.config import ConfigError, LogConfig, resolve
from guardjax.train.loggers import check_loggers, open_loggers
from guardjax.train.metrics import MetricWriter, read_metrics


def written(folder, config, windows, state=None):
    """Writes windows of (step, stage, loss) and the state of the writer after each."""
    opened = open_loggers(config, folder, "run", {"seed": 1})
    writer, states = MetricWriter(folder, loggers=opened), []
    writer.restore(state)
    for step, stage, loss in windows:
        writer.add({"loss": (loss, 2.0), "nothing": (0.0, 0.0)})
        writer.write(step, stage, time={"seconds": float(step)})
        states.append(writer.state())
    writer.close()
    return states


def test_tensorboard_reads_what_was_written(tmp_path):
    written(tmp_path, LogConfig(tensorboard=True), [(1, "sft", 8.0), (2, "sft", 4.0),
                                                    (3, "grpo", np.float32(3.0))])
    found = EventAccumulator(str(tmp_path / "tensorboard"))
    found.Reload()
    assert sorted(found.Tags()["scalars"]) == [
        "grpo/loss", "grpo/time/seconds", "sft/loss", "sft/time/seconds"]
    assert [(e.step, e.value) for e in found.Scalars("sft/loss")] == [(1, 4.0), (2, 2.0)]
    assert [(e.step, e.value) for e in found.Scalars("grpo/loss")] == [(3, 1.5)]
    assert len(read_metrics(tmp_path / "metrics.jsonl")) == 3


def test_a_resumed_run_replaces_what_it_does_again(tmp_path):
    """Killed after step 4 with a checkpoint of step 2; the new numbers count."""
    config = LogConfig(tensorboard=True)
    states = written(tmp_path, config, [(step, "sft", 2.0 * step) for step in (1, 2, 3, 4)])
    written(tmp_path, config, [(3, "sft", 60.0), (4, "sft", 80.0)], states[1])
    found = EventAccumulator(str(tmp_path / "tensorboard"))
    found.Reload()
    assert [(e.step, e.value) for e in found.Scalars("sft/loss")] == [
        (1, 1.0), (2, 2.0), (3, 30.0), (4, 40.0)]


def test_without_a_wish_there_is_neither(tmp_path):
    written(tmp_path, LogConfig(), [(1, "sft", 1.0)])
    assert [file.name for file in tmp_path.iterdir()] == ["metrics.jsonl"]


class FakeWandb(types.ModuleType):
    """The calls of `wandb` that are used, with the parameters they have there."""

    def __init__(self):
        super().__init__("wandb")
        self.__spec__ = importlib.util.spec_from_loader("wandb", None)
        self.calls = []

    def init(self, *, project, name, id, resume, mode, dir, config):
        self.calls.append(("init", project, name, id, resume, mode, dir, config))
        return self

    def define_metric(self, name, *, step_metric):
        self.calls.append(("define_metric", name, step_metric))

    def log(self, data):
        self.calls.append(("log", data))

    def finish(self):
        self.calls.append(("finish",))


def test_wandb_is_given_every_line_and_a_resumed_run_is_the_same_there(tmp_path, monkeypatch):
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    config = LogConfig(wandb_project="guards", wandb_mode="offline")
    check_loggers(config)
    for _ in range(2):
        written(tmp_path, config, [(1, "sft", 8.0)])
    first = fake.calls[:4]
    run_id = first[0][3]
    assert first == [
        ("init", "guards", "run", run_id, "allow", "offline", str(tmp_path), {"seed": 1}),
        ("define_metric", "*", "step"),
        ("log", {"step": 1, "sft/loss": 4.0, "sft/time/seconds": 1.0}), ("finish",)]
    assert len(run_id) == 16 and fake.calls[4:] == first


@pytest.mark.parametrize("config, message", [
    (LogConfig(tensorboard=True),
     r"log.tensorboard=True needs the package tensorboardX: pip install 'guardjax\[tensorboard\]'"),
    (LogConfig(wandb_project="mine"),
     r"log.wandb_project='mine' needs the package wandb: pip install 'guardjax\[wandb\]'")])
def test_what_is_not_installed_is_said_with_the_extra(config, message, monkeypatch):
    monkeypatch.setattr(loggers, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=message):
        check_loggers(config)


@pytest.mark.parametrize("change, message", [
    ("log.peak_flops=-1", "peak_flops must be >= 0, got -1"),
    ("log.wandb_mode=offline", "wandb_mode='offline' is for a wandb_project"),
    ("log.wandb_mode=sometimes", "wandb_mode must be one of 'online', 'offline'"),
])
def test_bad_values_are_named(change, message):
    with pytest.raises(ConfigError, match=message):
        resolve({"name": "a", "stages": ({"kind": "sft", "steps": 1},)}, [change])
