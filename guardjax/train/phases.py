"""Where a run's wall time goes: phases that nest, added up over restarts.

A phase holds the time in which the host is in it and in no phase within it. Devices work while the
host goes on: the host waits for them where it asks for their numbers, which is in a phase of a
step. Goodput is the share of all wall time since the first start that was spent in steps.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax

IN_STEPS = ("rollout", "rewards", "update")
START, COMPILE, DATA, CHECKPOINT, LOG, OTHER, LOST = (
    "start", "compile", "data", "checkpoint", "log", "other", "lost")

_active: list[TimeLedger] = []


class TimeLedger:
    """Seconds by phase, in this process and in those before it whose checkpoint it goes on from.

    "lost" is what no surviving ledger accounts for: steps that were done again after a kill, and
    the time between the processes.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter,
                 wall: Callable[[], float] = time.time) -> None:
        self._clock, self._wall, self._thread = clock, wall, threading.get_ident()
        self._seconds: dict[str, float] = {}
        self._stack = [START]
        self._since = clock()
        self._first_start, self._starts = wall(), 1

    @property
    def where(self) -> str:
        """The phase and those around it, such as "update/compile"; for any thread to ask."""
        return "/".join(self._stack[1:] or self._stack)

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time within goes to `name`; it has its name in a profile, too."""
        self._charge()
        self._stack.append(name)
        try:
            with jax.profiler.TraceAnnotation(name):
                yield
        finally:
            self._charge()
            self._stack.pop()

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """While open, `phase` of this module is this ledger's."""
        _active.append(self)
        try:
            yield
        finally:
            _active.remove(self)

    def seconds(self) -> dict[str, float]:
        """Seconds by phase up to now, "lost" among them; they add up to `wall`."""
        self._charge()
        lost = self.wall() - sum(self._seconds.values())
        return self._seconds | ({LOST: lost} if self._starts > 1 and lost > 0 else {})

    def wall(self) -> float:
        """Seconds since the first start of the run."""
        return max(self._wall() - self._first_start, sum(self._seconds.values()))

    def goodput(self) -> float:
        """Share of `wall` in steps, in [0, 1]."""
        seconds = self.seconds()
        return sum(seconds.get(name, 0.0) for name in IN_STEPS) / max(self.wall(), 1e-9)

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps, as JSON."""
        self._charge()
        return {"first_start": self._first_start, "starts": self._starts,
                "seconds": dict(self._seconds)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on from a checkpoint's `state`; an empty one leaves everything."""
        if state:
            self._charge()
            self._first_start, self._starts = state["first_start"], state["starts"] + 1
            for name, seconds in state["seconds"].items():
                self._seconds[name] = self._seconds.get(name, 0.0) + seconds

    def summary(self) -> str:
        """One line: wall time, goodput, and where the time went, the longest first."""
        seconds, wall = self.seconds(), self.wall()
        shares = ", ".join(f"{name} {part / max(wall, 1e-9):.0%}" for name, part in sorted(
            seconds.items(), key=lambda item: -item[1]) if part >= 0.005 * wall)
        starts = f", {self._starts} starts" if self._starts > 1 else ""
        return (f"time: {wall:.0f} s{starts}, goodput {self.goodput():.0%} (share in "
                f"{', '.join(IN_STEPS)}); where it went: {shares}")

    def owned(self) -> bool:
        """Whether this thread is the one whose time is counted."""
        return threading.get_ident() == self._thread

    def _charge(self) -> None:
        now = self._clock()
        name = self._stack[-1]
        self._seconds[name] = self._seconds.get(name, 0.0) + now - self._since
        self._since = now


def phase(name: str) -> contextlib.AbstractContextManager[None]:
    """Time within goes to `name` of the run that goes on in this thread, if there is one."""
    if _active and _active[-1].owned():
        return _active[-1].phase(name)
    return contextlib.nullcontext()
