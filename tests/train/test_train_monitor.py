"""What a run tells of itself: speed and memory in `time/...`, a profile that opens."""

import gzip
import io
import json

import jax
import numpy as np
import pytest
import rich.console

from guardjax.cli.step_work import StepWork, _lengths
from guardjax.cli.train import steps
from guardjax.data.sources import Batch
from guardjax.scale.analytic import program_flops
from guardjax.scale.peaks import peak_flops
from guardjax.scale.workload import Lengths
from guardjax.train.checkpoint import Checkpointer
from guardjax.train.config import CheckpointConfig, GuardConfig, LogConfig, RLConfig
from guardjax.train.console import RunConsole
from guardjax.train.guard import NonFiniteGuard
from guardjax.train.loop import run_stages
from guardjax.train.meter import Meter, Work
from guardjax.train.metrics import MetricWriter, read_metrics
from guardjax.train.monitor import make_monitor
from guardjax.train.phases import TimeLedger
from guardjax.train.state import Bundle


def watched_run(toy, folder, stages, profile=None, meter=None):
    """Runs toy stages with everything that watches; returns what was said."""
    out = io.StringIO()
    console = RunConsole(1, rich.console.Console(file=out, width=300))
    ledger = TimeLedger()
    with Checkpointer(folder, CheckpointConfig(every_steps=2)) as saver:
        run_stages(
            stages, Bundle(frozen=toy.params()), checkpointer=saver, writer=MetricWriter(folder),
            console=console, guard=NonFiniteGuard(3, saver.dump), log=LogConfig(every_steps=2),
            monitor=make_monitor(ledger, meter or Meter(), GuardConfig(), folder, console.line,
                                 profile))
    return out.getvalue() + ledger.summary()


def test_every_line_has_speed_memory_and_where_the_time_went(toy, tmp_path):
    meter = Meter(lambda stage, batch, metrics: Work(len(batch["x"]), 50.0), peak_flops=1e3)
    said = watched_run(toy, tmp_path, [toy.stage(num_steps=6)], meter=meter)
    lines = read_metrics(tmp_path / "metrics.jsonl", with_time=True)
    assert len(lines) == 3
    for line in lines:
        assert 0 < line["time/step_seconds"] <= line["time/step_seconds_max"]
        # Four examples of 50 FLOPs a step, so 1 ms of the stated peak is 1 FLOP.
        assert line["time/tokens_per_second"] * line["time/step_seconds"] == pytest.approx(4)
        assert line["time/mfu"] * line["time/step_seconds"] == pytest.approx(50 / 1e3)
        assert line["time/host_bytes_peak"] > 2**20         # CPUs tell nothing of themselves
        assert line["time/compilations"] >= 0 and 0 < line["time/goodput"] <= 1
        inside = sum(value for name, value in line.items() if name.startswith("time/in_"))
        assert inside > 0 and line["time/in_update"] > 0 and line["time/in_data"] > 0
    assert "goodput" in said and "where it went" in said
    # None of it is what equal runs are compared by.
    assert not any(name.startswith("time/") for name in read_metrics(tmp_path / "metrics.jsonl")[0])


def test_a_resumed_run_adds_up_its_time(toy, tmp_path):
    stages = [toy.stage(num_steps=6)]
    stages[0].on_step = lambda step: 1 / 0 if step == 5 else None
    with pytest.raises(ZeroDivisionError):
        watched_run(toy, tmp_path, stages)
    assert ", 2 starts, goodput" in watched_run(toy, tmp_path, [toy.stage(num_steps=6)])


def test_chosen_steps_are_traced_by_name(toy, tmp_path):
    said = watched_run(toy, tmp_path, [toy.stage(num_steps=6)], profile=(3, 4))
    files = list(tmp_path.glob("profile/plugins/profile/*/perfetto_trace.json.gz"))
    assert len(files) == 1 and f"profile: {files[0]}" in said
    assert list(files[0].parent.glob("*.xplane.pb"))        # what xprof reads
    with gzip.open(files[0], "rt") as file:
        events = json.load(file)["traceEvents"]
    steps = [event for event in events if event.get("name") == "toy"]
    assert sorted(int(event["args"]["step_num"]) for event in steps) == [3, 4]
    assert sum(event.get("name") == "data" for event in events) == 1      # that of step 4
    assert all(event["dur"] > 0 for event in steps)


def test_steps_that_never_come_are_said(toy, tmp_path):
    said = watched_run(toy, tmp_path, [toy.stage(num_steps=2)], profile=(7, 8))
    assert "profile: no step 7 to 8 was done in this start" in said
    assert not (tmp_path / "profile").exists()


@pytest.mark.parametrize("text", ["3", "0:2", "5:4", "a:b", "1:2:3", ""])
def test_steps_are_first_and_last(text):
    assert steps("10:12") == (10, 12)
    with pytest.raises(Exception, match="does not name steps: write FIRST:LAST"):
        steps(text)


# --- what a step computes ------------------------------------------------------------------------

def batch_of(small_guard, pictures):
    source = small_guard.source(num=1, pictures=(0,) if pictures else ())
    return source[0]


@pytest.mark.parametrize("pictures", [False, True])
def test_work_of_supervised_steps_is_counted(small_guard, pictures):
    stage, cfg = small_guard.config("sft", 2), small_guard.model.cfg
    batch = batch_of(small_guard, pictures)
    work = StepWork({"sft": stage}, cfg)("sft", batch, {})
    assert work.tokens == np.sum(batch.prompts.prompt.mask) + batch.length.sum()
    lengths = _lengths(batch, cfg)
    assert lengths.prompt == batch.prompts.prompt.tokens.shape[1]
    features = np.max(batch.prompts.prompt.feature_index) + 1 if pictures else 0
    assert lengths.image >= features and (lengths.image > 0) == pictures
    assert work.flops == program_flops("sft/update", stage, cfg, lengths).least > 0


def test_work_of_rollouts_counts_rounds_and_what_was_sampled(small_guard):
    rl = RLConfig(preset="dapo", group_size=4, max_tokens=8)
    stage, cfg = small_guard.config("grpo", 2, rl=rl), small_guard.model.cfg
    batch = batch_of(small_guard, False)
    count = StepWork({"grpo": stage}, cfg)
    answers = {"rollout/tokens": (96.0, 32.0), "dynamic/rounds": (2.0, 1.0)}
    work = count("grpo", batch, answers)
    assert work.tokens == 2 * np.sum(batch.prompts.prompt.mask) + 96
    lengths = Lengths(batch.prompts.prompt.tokens.shape[1], 0, batch.tokens.shape[-1])
    short = small_guard.config("grpo", 2, rl=RLConfig(preset="dapo", group_size=4, max_tokens=3))
    rollout = program_flops("grpo/rollout", short, cfg, lengths).least
    update = program_flops("grpo/update", stage, cfg, lengths).least
    assert work.flops == pytest.approx(2 * rollout + update)
    longer = count("grpo", batch, answers | {"rollout/tokens": (192.0, 32.0)})
    assert longer.flops > work.flops


def test_other_batches_have_no_flops(small_guard):
    batch = batch_of(small_guard, False)
    stage = small_guard.config("exact", 2)
    assert StepWork({"exact": stage}, small_guard.model.cfg)("exact", batch, {}).flops is None
    assert StepWork({"exact": stage}, small_guard.model.cfg)("exact", object(), {}) == Work(0.0)
    assert isinstance(batch, Batch)


@pytest.mark.parametrize("kind, peak", [
    ("TPU v5 lite", 197e12), ("TPU v5p", 459e12), ("TPU v6 lite", 918e12), ("TPU v4", 275e12),
    ("NVIDIA H100 80GB HBM3", 989.4e12), ("cpu", 0.0), (jax.devices()[0].device_kind, 0.0)])
def test_peaks_are_the_published_ones(kind, peak):
    assert peak_flops(kind) == peak
