"""A published table beside what is measured: in the terminal, for the page and as JSON."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import rich.box
from rich.table import Table

from guardjax.eval.bootstrap import Interval
from guardjax.eval.paper_tables import PaperTable

HEAD = ("Model", "Column", "Paper", "Measured", "95 % interval", "Difference", "n")

# Of each model a cell for each of the table's columns; None where it is not measured.
Lines = Mapping[str, Sequence[Interval | None]]


def side_by_side(table: PaperTable, lines: Lines, view: str) -> Table:
    """For the terminal; `view` says under which protocol and how models were asked."""
    grid = Table(title=f"{table.title} ({view}); published in {table.source}; per cent",
                 title_justify="left", header_style="bold", pad_edge=False, show_edge=False,
                 box=rich.box.SIMPLE_HEAD)
    for number, head in enumerate(HEAD):
        grid.add_column(head, justify="right" if number > 1 else "left",
                        overflow="fold" if number < 2 else "ellipsis")
    for line in grid_lines(table, lines):
        grid.add_row(*line)
    return grid


def grid_lines(table: PaperTable, lines: Lines) -> list[Sequence[str]]:
    """The words of `HEAD`, one line a model and column."""
    return [(model, column, *_words(paper, cell))
            for model, column, paper, cell in _cells(table, lines)]


def cells_as_json(table: PaperTable, lines: Lines) -> list[dict[str, Any]]:
    """One record a cell: model, column, the published value and what was measured."""
    return [{"model": model, "column": column, "paper": paper, **_numbers(cell)}
            for model, column, paper, cell in _cells(table, lines)]


def _cells(table: PaperTable, lines: Lines
           ) -> Iterator[tuple[str, str, float | None, Interval | None]]:
    """(model, column, published, measured)."""
    for model, cells in lines.items():
        published = table.rows.get(model, (None,) * len(table.columns))
        for column, paper, cell in zip(table.columns, published, cells, strict=True):
            yield model, column, paper, cell


def _words(paper: float | None, cell: Interval | None) -> tuple[str, ...]:
    shown = "–" if paper is None else f"{paper:g}"
    if cell is None or math.isnan(cell.value):
        return shown, "–", "–", "–", "–" if cell is None else str(cell.n)
    interval = ("none" if math.isnan(cell.low)
                else f"{100 * cell.low:.1f}–{100 * cell.high:.1f}")
    difference = "–" if paper is None else f"{100 * cell.value - paper:+.1f}"
    return shown, f"{100 * cell.value:.1f}", interval, difference, str(cell.n)


def _numbers(cell: Interval | None) -> dict[str, Any]:
    if cell is None:
        return {"value": None}
    return {key: None if isinstance(value, float) and math.isnan(value) else value
            for key, value in dataclasses.asdict(cell).items()}
