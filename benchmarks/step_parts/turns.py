"""How a worker takes its turns. Standard library only: the peer's environment has no guardjax.

A worker answers each line of its standard input with one step, and says what it cost in a line of
JSON. What libraries print goes to standard error.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import pathlib
import sys
import time
import zlib
from collections.abc import Iterable

STATUS, CLEAR = pathlib.Path("/proc/self/status"), pathlib.Path("/proc/self/clear_refs")


class Turns:
    """The worker's end of the pipe, its clocks, and its memory (of Linux alone)."""

    def __init__(self) -> None:
        self._out = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)

    def loaded(self, **facts: object) -> None:
        """Libraries and weights are here: memory is counted from now on."""
        _give_back()
        self._base = _kilobytes("VmRSS")
        self._say(facts)

    def begin(self) -> None:
        """Waits for this worker's turn and starts the clocks; leaves when there is none."""
        if not sys.stdin.readline():
            raise SystemExit(0)
        self._cpu, self._wall = time.process_time(), time.perf_counter()

    def end(self, **facts: object) -> None:
        """Says what the turn cost. Then the peak of memory begins anew."""
        cpu, wall = time.process_time() - self._cpu, time.perf_counter() - self._wall
        grown = None if self._base is None else (_kilobytes("VmHWM") - self._base) / 1024
        _give_back()
        self._say({"cpu": cpu, "wall": wall, "grown_mib": grown} | facts)

    def _say(self, facts: dict[str, object]) -> None:
        print(json.dumps(facts), file=self._out, flush=True)


def fingerprint(tokens: Iterable[int]) -> int:
    """Tells two prompts apart."""
    return zlib.crc32(json.dumps([int(token) for token in tokens]).encode())


def _give_back() -> None:
    """Frees what nobody holds, compilers' memory above all, and starts the peak anew."""
    gc.collect()
    if CLEAR.exists():
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)     # of glibc
        if trim is not None:
            trim(0)
        CLEAR.write_text("5")


def _kilobytes(name: str) -> int | None:
    if not STATUS.exists():
        return None
    return next(int(line.split()[1]) for line in STATUS.read_text().splitlines()
                if line.startswith(name + ":"))
