"""How benchmarks take times; itself measures nothing.

Times of two ways are compared only if they were taken alike: on one pinned core, in turns, so that
whatever else runs disturbs both, and by the median, which a disturbed turn leaves as it is. On a
CPU they are seconds of the processor, to which a neighbour on the core adds little; wall time grows
with everybody who waits.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Mapping
from typing import TypeVar

import jax

REPEATS = 7
Key = TypeVar("Key")


def pin_core() -> None:
    """Keeps this process on one core. Call it before JAX starts its threads; Linux only."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def median_seconds(ways: Mapping[Key, Callable[[], object]],
                   repeats: int = REPEATS) -> dict[Key, float]:
    """Median seconds of each way, run in turns. Call each once before, to compile it."""
    clock = time.process_time if jax.default_backend() == "cpu" else time.perf_counter
    taken = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            start = clock()
            jax.block_until_ready(way())
            taken[name].append(clock() - start)
    return {name: statistics.median(seconds) for name, seconds in taken.items()}


def load_line() -> str:
    """What else the machine did: the load averages of 1, 5 and 15 minutes, and the cores."""
    averages = " ".join(f"{average:.1f}" for average in os.getloadavg())
    return f"# load {averages} on {os.cpu_count()} cores"
