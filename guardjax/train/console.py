"""What a person sees: progress with ETA, word before long waits, tables of sampled answers."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Mapping, Sequence

import rich.console
import rich.progress
import rich.table
import rich.text


@dataclasses.dataclass(frozen=True)
class SampleRow:
    """One sampled answer."""

    policy: str
    rationale: str
    verdict: str
    reward: Mapping[str, float]     # part -> value


class RunConsole:
    """Progress of stages; on a terminal a live bar, elsewhere one line every `every_steps`."""

    def __init__(self, every_steps: int = 10, console: rich.console.Console | None = None,
                 *, enabled: bool = True) -> None:
        self._console = console or rich.console.Console(stderr=True, quiet=not enabled)
        self._every = every_steps
        self._stage = ""
        self._num_steps = 0
        self._first = 0
        self._started = 0.0
        self._progress: rich.progress.Progress | None = None
        self._task: rich.progress.TaskID | None = None

    def line(self, text: str) -> None:
        """Prints one line, above the bar if there is one."""
        self._console.print(_shown(text), highlight=False)

    def stage_started(self, name: str, step: int, num_steps: int) -> None:
        """Opens the bar; `step` is where a resumed stage goes on."""
        self._stage, self._first, self._num_steps = name, step, num_steps
        self._started = time.monotonic()
        if step:
            self.line(f"{name}: resumed at step {step}")
        if self._console.is_terminal:
            self._progress = rich.progress.Progress(
                rich.progress.TextColumn("{task.description}"), rich.progress.BarColumn(),
                rich.progress.MofNCompleteColumn(),
                rich.progress.TextColumn("{task.fields[rate]}"),
                rich.progress.TimeRemainingColumn(), rich.progress.TextColumn("eta"),
                console=self._console)
            self._task = self._progress.add_task(name, total=num_steps, completed=step, rate="")
            self._progress.start()

    def compiling(self, what: str) -> None:
        """Says why nothing will move for a while."""
        self.line(f"{self._stage}: compiling … ({what})")

    def step_done(self, step: int, means: Mapping[str, float] | None = None) -> None:
        """Moves the bar; `means` are the newest metrics, if any were just reduced."""
        if step == self._first + 1:
            self._started = time.monotonic()    # the first step compiles; leave it out of rates
        rate = (step - self._first - 1) / max(time.monotonic() - self._started, 1e-9)
        if self._progress is not None:
            label = self._stage + (f" loss {means['loss']:.4f}" if means and "loss" in means
                                   else "")
            fields = {"description": label} if means else {}
            self._progress.update(self._task, completed=step, rate=f"{rate:.2f} steps/s",
                                  **fields)
        elif step % self._every == 0 or step == self._num_steps:
            shown = ", ".join(f"{name} {_number(value)}" for name, value in (means or {}).items())
            left = (f", {rate:.2f} steps/s, eta {_duration((self._num_steps - step) / rate)}"
                    if rate else "")
            self.line(f"{self._stage}: step {step}/{self._num_steps}{left}"
                      + (f": {shown}" if shown else ""))

    def table(self, step: int, rows: Sequence[SampleRow]) -> None:
        """Shows sampled answers with the parts of their rewards."""
        table = rich.table.Table(title=f"{self._stage}, step {step}", title_justify="left")
        for title in ("policy", "rationale", "verdict", "reward"):
            table.add_column(title, overflow="fold")
        for row in rows:
            parts = ", ".join(f"{name} {value:.2f}" for name, value in row.reward.items())
            table.add_row(*(_shown(text) for text in (
                _clip(row.policy), _clip(row.rationale), row.verdict, parts)))
        self._console.print(table)

    def stage_finished(self) -> None:
        """Closes the bar."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None


def _number(value: float) -> str:
    """A mean over nothing (no prompt of these steps has such a metric) is a dash, not an alarm."""
    return "–" if math.isnan(value) else f"{value:.4g}"


def _shown(text: str) -> rich.text.Text:
    """Text as data: no markup, no control characters that a policy could steer a terminal with."""
    return rich.text.Text("".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in text))


def _clip(text: str, limit: int = 240) -> str:
    return text if len(text) <= limit else text[:limit - 1] + "…"


def _duration(seconds: float) -> str:
    if not math.isfinite(seconds):
        return "?"
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
