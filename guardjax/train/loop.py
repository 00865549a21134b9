"""The one training loop: stages in order, steps in order."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import jax

from guardjax.data.prompts import PromptError
from guardjax.rewards.reward import RewardError
from guardjax.rl.engine import EngineError
from guardjax.train.checkpoint import Checkpointer
from guardjax.train.compilation import announce_traces
from guardjax.train.config import LogConfig
from guardjax.train.console import RunConsole, SampleRow
from guardjax.train.guard import NonFiniteGuard
from guardjax.train.hosts import StopVote
from guardjax.train.metrics import MetricWriter
from guardjax.train.monitor import Monitor
from guardjax.train.phases import CHECKPOINT, DATA, LOG, START
from guardjax.train.preemption import Preempted, StopSignal
from guardjax.train.silence import SilenceWatch
from guardjax.train.state import Bundle

Metrics = Mapping[str, tuple[Any, Any]]             # name -> (sum [], count [])


class Shown(Protocol):
    """What a step that sampled has to show; asked only when it is due."""

    def table(self) -> Sequence[SampleRow]:
        """A few answers, for the console and `samples.jsonl`."""
        ...

    def groups(self) -> Sequence[Mapping[str, Any]]:
        """Whole groups as strict JSON, for `groups.jsonl`."""
        ...


class DataEndedError(RuntimeError):
    """A stage's data iterator ended before its last step."""


class Stage(Protocol):
    """A part of a run; it knows nothing of the others.

    Everything must follow from the bundle and the config: after a restart `init` is called again
    with the same parameters, and its state and data iterator are then set to the saved ones.
    """

    name: str
    num_steps: int
    updates: int        # optimiser updates a step

    def init(self, bundle: Bundle) -> Bundle:
        """Returns the bundle with `state`, `frozen`, `data_iterator` (and reference) set."""
        ...

    def step(self, bundle: Bundle, batch: Any) -> tuple[Bundle, Metrics, Shown | None]:
        """Returns the bundle one step later, metrics as (sum, count), and what was sampled."""
        ...

    def finish(self, bundle: Bundle) -> Bundle:
        """Returns `bundle.finished()`, or that of its own making, for the next stage."""
        ...


def run_stages(stages: Sequence[Stage], bundle: Bundle, *, checkpointer: Checkpointer,
               writer: MetricWriter, console: RunConsole, guard: NonFiniteGuard,
               log: LogConfig, monitor: Monitor | None = None) -> Bundle:
    """Runs all stages from `bundle` (all parameters in `frozen`), or on from the newest save.

    Raises:
      Preempted: after SIGTERM or Ctrl-C, with everything saved.
      NonFiniteError, DataEndedError, CheckpointError, DiskFullError: see there.
    """
    monitor = monitor or Monitor()
    saved = checkpointer.peek()
    for name in checkpointer.incomplete:
        console.line(f"ignored an incomplete checkpoint: {name}")
    writer.restore(saved.writer if saved else None)
    if saved:
        bundle = bundle.replace(    # no name of its own, which would keep it through all stages
            frozen=checkpointer.load_stage_start(saved.clock.stage, bundle.frozen),
            clock=saved.clock)
        monitor.ledger.restore(saved.time)
    with monitor, StopSignal() as stop:
        for stage in stages[bundle.clock.stage:]:
            with monitor.ledger.phase(START):
                bundle = stage.init(bundle)
                if saved and bundle.clock == saved.clock:
                    bundle = checkpointer.restore(bundle)
            bundle = run_stage(stage, bundle, last=stage is stages[-1], checkpointer=checkpointer,
                               writer=writer, console=console, guard=guard, log=log, stop=stop,
                               monitor=monitor)
            with monitor.ledger.phase(CHECKPOINT):
                bundle = stage.finish(bundle)
                bundle = bundle.replace(clock=bundle.clock.next_stage())
                checkpointer.save_stage_start(bundle)
    return bundle


def run_stage(stage: Stage, bundle: Bundle, *, last: bool, checkpointer: Checkpointer,
              writer: MetricWriter, console: RunConsole, guard: NonFiniteGuard, log: LogConfig,
              stop: StopSignal, monitor: Monitor) -> Bundle:
    """Runs the steps that `bundle.clock` has not yet done; returns the bundle after the last.

    The newest step is saved, or is being saved, when this returns or raises `RewardError`,
    `EngineError` or, after a step, `PromptError`; it is saved when this raises `Preempted`. `last`
    tells that no stage follows.
    """
    phase = monitor.ledger.phase
    first, window = bundle.clock.step, bundle.clock
    silence, vote = SilenceWatch(console.line), StopVote()

    def announce(name: str, traces: int) -> None:
        if bundle.clock.step > first:       # the first step has its own line
            console.compiling(f"{name}, shape {traces}")

    console.stage_started(stage.name, first, stage.num_steps)
    if first < stage.num_steps:
        console.compiling("first step")
    try:
        with announce_traces(announce):
            mark = time.perf_counter()
            while bundle.clock.step < stage.num_steps:
                position = _position(bundle)
                try:
                    with phase(DATA):
                        batch = _next_batch(stage, bundle)
                    with monitor.step(stage.name, bundle.clock.total + 1):
                        bundle, metrics, shown = stage.step(bundle, batch)
                except (RewardError, EngineError, PromptError) as error:
                    # Before the update: it can be done again. A text that is too long at once
                    # leaves nothing, so that another config may have the folder.
                    if not isinstance(error, PromptError) or bundle.clock.step > first:
                        _rewind(bundle, position)
                        _save(bundle, stage, checkpointer, writer, guard, monitor)
                    raise
                now = time.perf_counter()
                seconds, mark = now - mark, now
                bundle = bundle.replace(clock=bundle.clock.tick(seconds))
                with phase("update"):       # waits for the device
                    guard.observe(stage, bundle)
                monitor.step_done(stage.name, bundle.clock, seconds, batch, metrics)
                checkpointer.best_metric.observe(metrics, last)
                writer.add(metrics)
                means = None
                if _is_due(bundle.clock.step, log.every_steps, stage.num_steps):
                    means = _write(writer, stage, window, bundle, monitor)
                    silence.observe(stage.name, bundle.clock.step - window.step, means)
                    window = bundle.clock
                if shown is not None:
                    with phase(LOG):
                        _show(shown, stage, bundle, writer, console, log)
                console.step_done(bundle.clock.step, means)
                signum = vote.cast(stop.signum)
                if checkpointer.due(bundle.clock) or signum is not None:
                    _save(bundle, stage, checkpointer, writer, guard, monitor)
                if signum is not None:
                    checkpointer.wait()
                    console.line(f"{stage.name}: asked to stop; saved step {bundle.clock.total}")
                    raise Preempted(signum)
        _save(bundle, stage, checkpointer, writer, guard, monitor)
    finally:
        console.stage_finished()
    return bundle


def _is_due(step: int, every: int, last: int | None = None) -> bool:
    return step == last or (every > 0 and step % every == 0)


def _next_batch(stage: Stage, bundle: Bundle) -> Any:
    if bundle.data_iterator is None:
        return None
    try:
        return next(bundle.data_iterator)
    except StopIteration:
        raise DataEndedError(
            f"stage {stage.name!r}: the data ended after {bundle.clock.step} of "
            f"{stage.num_steps} steps; repeat the dataset or ask for fewer steps") from None


def _position(bundle: Bundle) -> Any:
    return None if bundle.data_iterator is None else bundle.data_iterator.get_state()


def _rewind(bundle: Bundle, position: Any) -> None:
    if position is not None:
        bundle.data_iterator.set_state(position)


def _write(writer: MetricWriter, stage: Stage, window: Any, bundle: Bundle,
           monitor: Monitor) -> dict[str, float]:
    with monitor.ledger.phase("update"):
        jax.block_until_ready(bundle.state)
    seconds = bundle.clock.seconds - window.seconds
    steps = bundle.clock.step - window.step
    with monitor.ledger.phase(LOG):
        return writer.write(bundle.clock.total, stage.name, time={
            "seconds": bundle.clock.seconds, "steps_per_second": steps / max(seconds, 1e-9),
            **monitor.window()})


def _show(shown: Shown, stage: Stage, bundle: Bundle, writer: MetricWriter,
          console: RunConsole, log: LogConfig) -> None:
    clock = bundle.clock
    if _is_due(clock.step, log.table_every_steps):
        rows = shown.table()
        console.table(clock.step, rows)
        writer.write_rows(clock.total, stage.name, [
            {"policy": row.policy, "rationale": row.rationale, "verdict": row.verdict,
             "reward": dict(row.reward)} for row in rows])
    if log.groups_every_steps and _is_due(clock.step, log.groups_every_steps, stage.num_steps):
        writer.write_groups(clock.total, stage.name, shown.groups())


def _save(bundle: Bundle, stage: Stage, checkpointer: Checkpointer, writer: MetricWriter,
          guard: NonFiniteGuard, monitor: Monitor) -> None:
    if bundle.state is None:        # a stage that trains nothing starts again from its beginning
        return
    with monitor.ledger.phase("update"):
        guard.settle(stage, bundle)
    with monitor.ledger.phase(CHECKPOINT):
        checkpointer.save(bundle, writer.state(), monitor.ledger.state())
