"""What a run tells of itself while it goes on: time by phase, speed, memory, hangs, a profile."""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax

from guardjax.train.compilation import CompilationCounter
from guardjax.train.config import GuardConfig
from guardjax.train.meter import Meter
from guardjax.train.phases import OTHER, TimeLedger
from guardjax.train.profile import FOLDER, StepProfile
from guardjax.train.state import Clock
from guardjax.train.watchdog import HangWatchdog


class Monitor:
    """Ledger, meter, watchdog and profile of one run; use it as a context manager.

    Nothing of it enters what two equal runs have in common: numbers go to `time/...`.
    """

    def __init__(self, ledger: TimeLedger | None = None, meter: Meter | None = None,
                 watchdog: HangWatchdog | None = None, profile: StepProfile | None = None) -> None:
        self.ledger = ledger or TimeLedger()
        self._meter = meter or Meter()
        self._watchdog, self._profile = watchdog, profile
        self._compilations = CompilationCounter()
        self._open = contextlib.ExitStack()
        self._seen: dict[str, float] = {}
        self._compiled = 0

    def __enter__(self) -> Monitor:
        enter = self._open.enter_context
        enter(self.ledger.active())
        enter(self._compilations)
        enter(self.ledger.phase(OTHER))
        if self._watchdog is not None:
            enter(self._watchdog)
        if self._profile is not None:
            self._open.callback(self._profile.close)
        return self

    def __exit__(self, *error: Any) -> None:
        self._open.__exit__(*error)

    @contextlib.contextmanager
    def step(self, stage: str, number: int) -> Iterator[None]:
        """Around step `number`, counted from 1 over all stages."""
        if self._profile is not None:
            self._profile.before(number)
        with (jax.profiler.StepTraceAnnotation(stage, step_num=number),
              self.ledger.phase("update")):
            yield

    def step_done(self, stage: str, clock: Clock, seconds: float, batch: Any,
                  metrics: Mapping[str, tuple[Any, Any]]) -> None:
        """After a step, which took `seconds` from the end of the one before."""
        self._meter.step(seconds, stage, batch, metrics)
        if self._profile is not None:
            self._profile.after(clock.total, metrics)
        self.alive(f"{stage}, step {clock.step}")

    def alive(self, what: str) -> None:
        """Tells the watchdog that something ended."""
        if self._watchdog is not None:
            self._watchdog.step_done(what)

    def window(self) -> dict[str, float]:
        """Numbers since the last call, for `time/...`; seconds in a phase are `in_<phase>`."""
        seconds = self.ledger.seconds()
        inside = {f"in_{name}": total - self._seen.get(name, 0.0)
                  for name, total in seconds.items()}
        self._seen = seconds
        compiled, self._compiled = self._compilations.count - self._compiled, (
            self._compilations.count)
        return (self._meter.window() | inside
                | {"compilations": compiled, "goodput": self.ledger.goodput()})


def make_monitor(ledger: TimeLedger, meter: Meter, guard: GuardConfig, folder: pathlib.Path,
                 tell: Callable[[str], None], profile: tuple[int, int] | None = None) -> Monitor:
    """The monitor of a run in `folder`; `profile` are the first and last step to be traced."""
    return Monitor(
        ledger, meter, HangWatchdog(guard, folder, lambda: ledger.where),
        None if profile is None else StepProfile(*profile, folder / FOLDER, tell))
