"""A model's answers to anything: those that are stored, and the others asked and stored."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Iterable

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from guardjax.cli import measure
from guardjax.cli.answer_cost import time_file, timed
from guardjax.eval.answer_file import AnswerFile
from guardjax.eval.guard import Guard
from guardjax.eval.records import Prediction

_COLUMNS = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
            TextColumn("answers"), TimeRemainingColumn(), TextColumn("left"))


def whole_answers(
    stored: AnswerFile, load: Callable[[], Guard],
    ask: Callable[[Guard], Iterable[list[Prediction]]], out: pathlib.Path, console: Console,
    seed: int = 0,
) -> list[Prediction]:
    """The answers to all rows, in order; only what is missing is asked, and `load` called for it.

    A look at a test split is written down in `out` before it is done. On a terminal a bar says how
    long it will take; it goes on from what was stored, and an interruption says what is kept.

    Args:
      stored: the file.
      load: gives the model.
      ask: what is missing, a batch of predictions at a time, each stored as it comes.
      out: folder of `looks.jsonl`, and of `time`, what each forward pass took.
      console: where it is told.
      seed: of the model, for that file.
    """
    name, number, missing = stored.pins.variant, len(stored), len(stored.missing)
    if not missing:
        _say(console, f"{name}: {number} answers are stored, none is asked for")
        return stored.in_order()
    guard = load()
    if stored.pins.split.startswith("test"):
        measure.log_look(out, name, seed, stored.pins.model, missing)
    kept = number - missing
    if kept:
        _say(console, f"{name}: {kept} of {number} answers are stored; going on from there")
    with Progress(*_COLUMNS, console=console, transient=True,
                  disable=not console.is_terminal) as bar:
        task = bar.add_task("asking", total=number, completed=kept)
        try:
            for rows in timed(ask(guard), time_file(out, stored), lambda: guard.num_programs):
                stored.append(rows)
                bar.advance(task, len(rows))
        except KeyboardInterrupt:
            _say(console, f"{name}: stopped; {number - len(stored.missing)} of {number} answers "
                          "are kept, and the same command goes on from there")
            raise
    _say(console, f"{name}: {missing} prompts{f', {kept} stored before' if kept else ''}, "
                  f"compilations: {guard.num_programs} (buckets: {guard.num_buckets})")
    return stored.in_order()


def _say(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)
