"""What answers cost: tokens, which follow from the model, and time, which belongs to the machine.

Tokens are kept with each answer. Time goes to `OUT/time/`, a line a forward pass with its answers,
and enters nothing that an evaluation must repeat.
"""

from __future__ import annotations

import dataclasses
import math
import pathlib
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import rich.box
from rich.console import Console
from rich.table import Table

from guardjax.eval.answer_file import AnswerFile
from guardjax.eval.answer_parts import parts_of
from guardjax.eval.records import Prediction
from guardjax.eval.report import PlainTable
from guardjax.json_file import write_json
from guardjax.train.jsonl import JsonLinesFile, read_jsonl

COST_FILE = "answer_cost.json"
_TITLE = "What answers cost"
_HEAD = ("Model", "Prompts", "Pictures", "Prompt tokens", "Answer tokens", "ms a prompt",
         "ms a picture")
_NOTE = ("Tokens are means over prompts, those of the picture among them; a picture under several "
         "policies is counted with each, though it is encoded once. Time is wall time on {device}, "
         "of passes that nothing was compiled in; a picture's is that of all its prompts.")


@dataclasses.dataclass(frozen=True)
class AnswerCost:
    """What one model's answers cost; NaN where it is not known."""

    prompts: int
    pictures: int
    prompt_tokens: float        # mean of a prompt
    answer_tokens: float        # mean of an answer, its end token included; 0 where scored
    ms_a_prompt: float          # over passes that nothing was compiled in
    ms_a_picture: float         # the same for all prompts of a picture
    compiling_seconds: float    # of passes that something was compiled in, all of it


def time_file(out: pathlib.Path, stored: AnswerFile) -> pathlib.Path:
    """Where the time of these answers is kept."""
    return out / "time" / f"{stored.path.parent.name}-{stored.path.name}"


def timed(batches: Iterable[list[Prediction]], file: pathlib.Path, programs: Callable[[], int]
          ) -> Iterator[list[Prediction]]:
    """The batches as they come, with a line in `file` for the time that each took.

    `programs` says how many programs are compiled so far.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    lines, batches = JsonLinesFile(file), iter(batches)
    while True:
        compiled, start = programs(), time.monotonic()
        rows = next(batches, None)
        if rows is None:
            return
        lines.append({"prompts": len(rows), "seconds": round(time.monotonic() - start, 6),
                      "compiled": programs() > compiled})
        yield rows


def answer_cost(rows: Sequence[Prediction], file: pathlib.Path) -> AnswerCost:
    """The cost of one model's answers, whose time is in `file`, and beside it that of parts."""
    laps = [lap for each in (file, *parts_of(file)) if each.is_file() for lap in read_jsonl(each)]
    steady = [lap for lap in laps if not lap["compiled"]]
    prompts = sum(lap["prompts"] for lap in steady)
    each = 1000 * sum(lap["seconds"] for lap in steady) / prompts if prompts else math.nan
    pictures = len({row.image_id for row in rows})
    return AnswerCost(
        len(rows), pictures, _mean([row.prompt_tokens for row in rows]),
        _mean([row.answer_tokens for row in rows]), each, each * len(rows) / pictures,
        sum(lap["seconds"] for lap in laps if lap["compiled"]) if laps else math.nan)


def show_costs(console: Console, costs: Mapping[str, AnswerCost], file: pathlib.Path
               ) -> list[PlainTable]:
    """Prints and writes what answers cost, model -> cost; gives the table for a report."""
    import jax

    device = jax.devices()[0].device_kind
    write_json(file, {"device": device, "models": {
        name: {key: None if math.isnan(value) else value
               for key, value in dataclasses.asdict(cost).items()}
        for name, cost in costs.items()}})
    lines = [(name, f"{cost.prompts:,}", f"{cost.pictures:,}", *(
        "–" if math.isnan(value) else f"{value:,.1f}" for value in (
            cost.prompt_tokens, cost.answer_tokens, cost.ms_a_prompt, cost.ms_a_picture)))
        for name, cost in costs.items()]
    table = Table(title=_TITLE, title_justify="left", header_style="bold", pad_edge=False,
                  box=rich.box.SIMPLE_HEAD, show_edge=False)
    for number, head in enumerate(_HEAD):
        table.add_column(head.replace(" ", "\n", 1), justify="right" if number else "left",
                         overflow="fold")
    for line in lines:
        table.add_row(*line)
    console.print(table, "")
    return [PlainTable(_TITLE, _HEAD, lines, _NOTE.format(device=device))]


def _mean(numbers: Sequence[int | None]) -> float:
    """NaN where any is not known, as in answers that an earlier version stored."""
    return math.nan if None in numbers or not numbers else statistics.fmean(numbers)
