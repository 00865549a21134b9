"""Metrics on disk, the console, and counted compilations."""

import io
import json
import math

import jax
import jax.numpy as jnp
import pytest
import rich.console

from guardjax.train.compilation import (
    CompilationCounter, CountedJit, announce_traces, compilation_line, enable_compile_cache)
from guardjax.train.console import RunConsole, SampleRow
from guardjax.train.metrics import MetricWriter, read_metrics


def test_means_are_of_sums_and_counts(tmp_path):
    writer = MetricWriter(tmp_path)
    writer.add({"loss": (jnp.float32(6.0), jnp.float32(3.0)), "none": (0.0, 0.0)})
    writer.add({"loss": (jnp.float32(2.0), jnp.float32(1.0)), "inf": (math.inf, 1)})
    means = writer.write(2, "sft", time={"seconds": 0.5})
    assert means["loss"] == 2.0 and math.isnan(means["none"])
    assert read_metrics(tmp_path / "metrics.jsonl") == [
        {"step": 2, "stage": "sft", "loss": 2.0, "none": None, "inf": None}]
    assert read_metrics(tmp_path / "metrics.jsonl", with_time=True)[0]["time/seconds"] == 0.5


def test_maxima_are_not_added(tmp_path):
    """Nor over nothing, nor over a checkpoint."""
    writer = MetricWriter(tmp_path)
    for value, count in ((0.5, 1.0), (2.0, 1.0), (0.0, 0.0)):
        writer.add({"gap_max": (jnp.float32(value), jnp.float32(count)), "empty_max": (0.0, 0.0)})
    writer.restore(json.loads(json.dumps(writer.state())))
    writer.add({"gap_max": (1.0, 1.0)})
    means = writer.write(1, "grpo")
    assert means["gap_max"] == 2.0 and math.isnan(means["empty_max"])


def test_a_restored_writer_goes_on_where_the_checkpoint_was(tmp_path):
    writer = MetricWriter(tmp_path)
    writer.add({"loss": (1.0, 1.0)})
    writer.write(1, "sft")
    writer.write_rows(1, "sft", [{"policy": "a\u2028b"}])
    writer.add({"loss": (0.1, 1.0)})
    state = json.loads(json.dumps(writer.state()))
    writer.add({"loss": (0.2, 1.0)})
    writer.write(3, "sft")
    whole = (tmp_path / "metrics.jsonl").read_text()
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 4, "lo')                       # killed in the middle of a line

    again = MetricWriter(tmp_path)
    again.restore(state)
    assert len(read_metrics(tmp_path / "metrics.jsonl")) == 1
    again.add({"loss": (0.2, 1.0)})
    again.write(3, "sft")
    assert (tmp_path / "metrics.jsonl").read_text() == whole
    assert len(read_metrics(tmp_path / "samples.jsonl")) == 1
    again.restore(None)
    assert (tmp_path / "metrics.jsonl").read_text() == ""
    with pytest.raises(ValueError, match="0 lines, but the checkpoint was written after 1"):
        again.restore(state)


def test_a_writer_of_another_process_writes_nothing(tmp_path):
    writer = MetricWriter(tmp_path, enabled=False)
    writer.add({"loss": (4.0, 2.0)})
    assert writer.write(1, "sft") == {"loss": 2.0}
    writer.restore(writer.state())
    assert not list(tmp_path.iterdir())


def shown(terminal=False, every=2):
    out = io.StringIO()
    return out, RunConsole(every, rich.console.Console(
        file=out, width=100, force_terminal=terminal, no_color=True))


def test_without_a_terminal_there_is_a_line_now_and_then():
    out, console = shown()
    console.stage_started("sft", 0, 5)
    console.compiling("first step")
    for step in range(1, 6):
        console.step_done(step, {"kl": math.nan, "loss": 0.25} if step % 2 == 0 else None)
    console.stage_finished()
    lines = out.getvalue().splitlines()
    assert lines[0] == "sft: compiling … (first step)" and len(lines) == 4
    assert lines[1].startswith("sft: step 2/5, ") and lines[1].endswith("kl –, loss 0.25")
    assert "steps/s, eta 0:00" in lines[1] and lines[3].startswith("sft: step 5/5")


def test_on_a_terminal_there_is_a_bar():
    out, console = shown(terminal=True)
    console.stage_started("grpo", 3, 5)
    console.step_done(4, {"loss": 0.5})
    console.step_done(5)
    console.stage_finished()
    assert "5/5" in out.getvalue() and "loss 0.5" in out.getvalue()
    assert "resumed at step 3" in out.getvalue()


def test_policies_cannot_steer_the_terminal():
    out, console = shown()
    console.table(1, [SampleRow("No [bold]knives\x1b[2J\x07", "r" * 999, "unsafe", {"ok": 1.0})])
    text = out.getvalue()
    assert "\x1b" not in text and "\x07" not in text and "[bold]knives" in text
    assert "unsafe" in text and "ok 1.00" in text and "…" in text


def test_compilations_are_counted_and_announced():
    double = CountedJit(lambda x: x * 2, "double")
    heard = []
    with CompilationCounter() as counter, announce_traces(lambda *args: heard.append(args)):
        for size in (3, 3, 5):
            double(jnp.ones(size))
    assert double.num_traces == 2 and heard == [("double", 1), ("double", 2)]
    assert counter.count >= 2 and counter.seconds > 0
    before = counter.count
    double(jnp.ones(7))
    assert counter.count == before and len(heard) == 2, "nothing is heard after the block"
    assert compilation_line([double], 3) == "compilations: 3 (buckets: 3): double 3"


def test_the_compile_cache_lies_where_it_was_asked_for(tmp_path, monkeypatch):
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in names}
    try:
        monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
        monkeypatch.setenv("GUARDJAX_CACHE_DIR", str(tmp_path / "home"))
        assert enable_compile_cache() == tmp_path / "home" / "xla"
        monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "jax"))
        assert enable_compile_cache() == tmp_path / "jax"
        assert enable_compile_cache(tmp_path / "mine") == tmp_path / "mine"
        assert jax.config.jax_compilation_cache_dir == str(tmp_path / "mine")
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
