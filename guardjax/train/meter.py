"""How fast steps are: wall seconds, tokens, share of the devices' peak, memory."""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax


class Work(NamedTuple):
    """What one step does."""

    tokens: float               # of prompts, each once, and of answers; no padding
    flops: float | None = None  # over all devices; None where nobody counted


WorkOf = Callable[[str, Any, Mapping[str, tuple[Any, Any]]], Work]
"""(stage's name, batch, its step's metrics) -> what the step did."""


class Meter:
    """Adds up steps between two lines of the log."""

    def __init__(self, work: WorkOf | None = None, peak_flops: float = 0.0) -> None:
        """`peak_flops` a second, of all devices together; 0 is unknown, and no MFU is told."""
        self._work, self._peak = work, peak_flops
        self._reset()

    def step(self, seconds: float, stage: str, batch: Any,
             metrics: Mapping[str, tuple[Any, Any]]) -> None:
        """Takes a step that took `seconds` from the end of the one before."""
        self._steps += 1
        self._seconds += seconds
        self._longest = max(self._longest, seconds)
        if self._work is not None:
            work = self._work(stage, batch, metrics)
            self._tokens += work.tokens
            self._flops = (None if work.flops is None or self._flops is None
                           else self._flops + work.flops)

    def window(self) -> dict[str, float]:
        """Numbers of the steps since the last call: seconds, tokens a second, MFU, bytes."""
        seconds = max(self._seconds, 1e-9)
        found = {"step_seconds": self._seconds / max(self._steps, 1),
                 "step_seconds_max": self._longest} | memory()
        if self._tokens:
            found["tokens_per_second"] = self._tokens / seconds
        if self._flops and self._peak:
            found["mfu"] = self._flops / seconds / self._peak
        self._reset()
        return found

    def _reset(self) -> None:
        self._steps, self._seconds, self._longest, self._tokens = 0, 0.0, 0.0, 0.0
        self._flops: float | None = 0.0


def memory() -> dict[str, float]:
    """Peak bytes of the fullest local device where it tells, else of this process."""
    stats = [device.memory_stats() or {} for device in jax.local_devices()]
    peaks = [each["peak_bytes_in_use"] for each in stats if "peak_bytes_in_use" in each]
    if peaks:
        return {"device_bytes_peak": float(max(peaks))}
    unit = 1 if sys.platform == "darwin" else 1024
    return {"host_bytes_peak": float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)}
