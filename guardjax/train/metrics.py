"""Metrics on disk: sums and counts in, means out, one JSON line a window of steps."""

from __future__ import annotations

import math
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from guardjax.train.jsonl import JsonLinesFile, read_jsonl
from guardjax.train.loggers import Logger

METRICS_FILE = "metrics.jsonl"
SAMPLES_FILE = "samples.jsonl"
GROUPS_FILE = "groups.jsonl"

# A metric whose name ends so is not added up but maximised: (largest value, whether there is one).
MAX_SUFFIX = "_max"

# Everything under it depends on the machine and the hour; two equal runs may differ there.
TIME_PREFIX = "time/"


def join_pairs(name: str, one: tuple[Any, Any], other: tuple[Any, Any],
               larger: Callable[[Any, Any], Any] = jnp.maximum) -> tuple[Any, Any]:
    """(sum, count) of a metric over two batches, or (maximum, 1) of one named so.

    A maximum is of values >= 0, and (0, 0) over nothing. `larger` is `max` for numbers.
    """
    if name.endswith(MAX_SUFFIX):
        return larger(one[0], other[0]), larger(one[1], other[1])
    return one[0] + other[0], one[1] + other[1]


class MetricWriter:
    """Reduces (sum, count) pairs over steps and writes the logs of a run's folder.

    A line of `metrics.jsonl` is `{"step", "stage", name: mean, ..., "time/...": ...}`; a mean over
    nothing, or one that is not finite, is null. `samples.jsonl` has the answers that the console
    shows, `groups.jsonl` whole groups of them. With `enabled=False` (all processes but the first)
    nothing is written, and everything else behaves alike.
    """

    def __init__(self, workdir: str | os.PathLike[str], *, enabled: bool = True,
                 loggers: Sequence[Logger] = ()) -> None:
        """`loggers` are given every line of metrics, too."""
        folder = pathlib.Path(workdir)
        self._enabled, self._loggers = enabled, loggers
        self._metrics = JsonLinesFile(folder / METRICS_FILE)
        self._samples = JsonLinesFile(folder / SAMPLES_FILE)
        self._groups = JsonLinesFile(folder / GROUPS_FILE)
        self._sums: dict[str, tuple[float, float]] = {}
        self._waiting: list[Mapping[str, Any]] = []

    def add(self, metrics: Mapping[str, tuple[Any, Any]]) -> None:
        """Takes one step's `name -> (sum [], count [])`; does not wait for the device."""
        self._waiting.append(metrics)

    def write(self, step: int, stage: str,
              time: Mapping[str, float] | None = None) -> dict[str, float]:
        """Writes the means since the last write, and returns them (NaN over nothing).

        `time` holds wall-clock numbers, written as `time/<name>`.
        """
        self._fold()
        means = {name: total / count if count else math.nan
                 for name, (total, count) in self._sums.items()}
        self._sums = {}
        self.write_values(step, stage, means | {TIME_PREFIX + k: v for k, v in
                                                (time or {}).items()})
        return means

    def write_values(self, step: int, stage: str, values: Mapping[str, float]) -> None:
        """Writes one line of finished numbers, for example of an evaluation."""
        if self._enabled:
            self._metrics.append({"step": step, "stage": stage} | {
                name: float(value) if math.isfinite(value) else None
                for name, value in values.items()})
            for logger in self._loggers:
                logger.write(step, stage, values)

    def write_rows(self, step: int, stage: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Writes sampled answers, one line a row."""
        for row in rows if self._enabled else ():
            self._samples.append({"step": step, "stage": stage} | dict(row))

    def write_groups(self, step: int, stage: str, groups: Sequence[Mapping[str, Any]]) -> None:
        """Writes whole groups (see `stages/groups.py`), one line a prompt."""
        for group in groups if self._enabled else ():
            self._groups.append({"step": step, "stage": stage} | dict(group))

    def close(self) -> None:
        """Closes the loggers; the files of this folder need none of it."""
        for logger in self._loggers:
            logger.close()

    def state(self) -> dict[str, Any]:
        """Returns what a checkpoint keeps, as JSON: file lengths and sums not yet written."""
        self._fold()
        if self._enabled:
            self._metrics.sync()
            self._samples.sync()
            self._groups.sync()
        return {"metrics": self._metrics.num_lines, "samples": self._samples.num_lines,
                "groups": self._groups.num_lines,
                "sums": {name: list(pair) for name, pair in self._sums.items()}}

    def restore(self, state: Mapping[str, Any] | None) -> None:
        """Cuts the files back to where a checkpoint was taken; None stands for the start.

        After it, a resumed run writes the same file as one that was never interrupted.

        Raises:
          ValueError: if a file is shorter than the checkpoint says.
        """
        state = state or {"metrics": 0, "samples": 0, "groups": 0, "sums": {}}
        if self._enabled:
            self._metrics.truncate(state["metrics"])
            self._samples.truncate(state["samples"])
            self._groups.truncate(state["groups"])
        self._sums = {name: (pair[0], pair[1]) for name, pair in state["sums"].items()}
        self._waiting = []

    def _fold(self) -> None:
        # One step after the other in float64: a checkpoint in between changes no bit.
        for metrics in jax.device_get(self._waiting):
            for name, (total, count) in metrics.items():
                self._sums[name] = join_pairs(name, self._sums.get(name, (0.0, 0.0)),
                                              (float(total), float(count)), max)
        self._waiting = []


def read_metrics(path: str | os.PathLike[str], *, with_time: bool = False) -> list[dict[str, Any]]:
    """Returns the lines of a metrics file, by default without what depends on the clock."""
    return [{name: value for name, value in record.items()
             if with_time or not name.startswith(TIME_PREFIX)} for record in read_jsonl(path)]
