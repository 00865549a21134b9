"""Models of a published table against the first of them, paired over pictures."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import rich.box
from rich.table import Table

from guardjax.eval.paired_test import PairedTest
from guardjax.eval.paper_tables import PaperTable
from guardjax.eval.protocol import Protocol
from guardjax.eval.reproduction import SOURCES, Answered, table_differences
from guardjax.eval.summary import MINUS
from guardjax.eval.tables import chance

Tests = Mapping[str, Sequence[PairedTest | None]]       # "MODEL − FIRST" -> a test a column


def against_first(table: PaperTable,
                  answers: Mapping[str, Mapping[tuple[str, str], Answered]],
                  protocol: Protocol) -> Tests:
    """Every model minus the first; `answers` are by model, then by (benchmark, split)."""
    first, *others = answers
    return {f"{model}{MINUS}{first}": table_differences(
        SOURCES[table.name], answers[model], answers[first], protocol) for model in others}


def difference_grid(table: PaperTable, tests: Tests) -> Table:
    """For the terminal."""
    grid = Table(title="Differences, paired over pictures; points", title_justify="left",
                 header_style="bold", pad_edge=False, show_edge=False, box=rich.box.SIMPLE_HEAD)
    heads, lines = difference_lines(table, tests)
    for number, head in enumerate(heads):
        grid.add_column(head, justify="right" if number > 1 else "left", overflow="fold")
    for line in lines:
        grid.add_row(*line)
    return grid


def difference_lines(table: PaperTable, tests: Tests) -> tuple[Sequence[str], list[Sequence[str]]]:
    """(head, lines), as people read them: in points."""
    return ("Models", "Column", "Measured", "95 % interval", "p"), [
        (models, column, f"{100 * test.difference.value:+.1f}",
         f"{100 * test.difference.low:+.1f} to {100 * test.difference.high:+.1f}", chance(test.p))
        for models, column, test in _there(table, tests)]


def differences_as_json(table: PaperTable, tests: Tests) -> list[dict[str, Any]]:
    """For the table's file; what is not defined is null."""
    return [{"models": models, "column": column, **{
        key: None if math.isnan(value) else value
        for key, value in {**dataclasses.asdict(test.difference), "p": test.p}.items()}}
        for models, column, test in _there(table, tests)]


def _there(table: PaperTable, tests: Tests) -> list[tuple[str, str, PairedTest]]:
    return [(models, column, test) for models, cells in tests.items()
            for column, test in zip(table.columns, cells, strict=True) if test is not None]
