"""P(unsafe) in a terminal, a report and a file."""

from __future__ import annotations

import dataclasses
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import rich.box
from rich.console import Console
from rich.table import Table

from guardjax.eval.calibration import BINS, NUMBERS, Calibration, calibrate, constant_rows
from guardjax.eval.records import Prediction
from guardjax.eval.report import PlainTable
from guardjax.json_file import write_json

CALIBRATION_FILE = "calibration.json"
_NOTE = ("95 % intervals, bootstrap over pictures. The constant guard gives every picture the "
         "share of its split that is unsafe: a Brier score that is no smaller says nothing.")
_HEAD = ("Split", "n", "AUROC", "Brier", "ECE", "TPR at FPR 1%", "TPR at FPR 5%")


def show_calibration(console: Console, predictions: Sequence[Prediction],
                     out: pathlib.Path) -> list[PlainTable]:
    """Writes and prints what P(unsafe) is worth; nothing where no prediction has one.

    Of several variants each has lines of its own, their names before the split's. Of each split a
    constant guard comes first.

    Returns:
      The table for a report, or none.
    """
    several = len({row.variant for row in predictions}) > 1
    found = []
    for split in dict.fromkeys(row.split for row in predictions):
        mine = [row for row in predictions if row.split == split]
        constant = constant_rows(row for row in mine if row.variant == mine[0].variant)
        found += calibrate(_named(row) for row in constant)
        found += calibrate(_named(row) if several else row for row in mine)
    if not found:
        return []
    write_json(out / CALIBRATION_FILE, {"bins": BINS, "splits": [_plain(
        dataclasses.asdict(each)) for each in found]})
    lines = [_line(each) for each in found]
    table = Table(*_HEAD, title="P(unsafe)", title_justify="left", box=rich.box.SIMPLE_HEAD)
    for line in lines:
        table.add_row(*(cell.replace(" [", "\n[") for cell in line))
    console.print(table)
    return [PlainTable("P(unsafe)", _HEAD, lines, _NOTE)]


def _named(row: Prediction) -> Prediction:
    return dataclasses.replace(row, split=f"{row.variant}, {row.split}")


def _line(each: Calibration) -> tuple[str, ...]:
    return each.split, str(each.n), *(_cell(getattr(each, name), *each.intervals[name])
                                      for name in NUMBERS)


def _cell(value: float, low: float, high: float) -> str:
    if math.isnan(value):
        return ""
    return f"{value:.3f}" + ("" if math.isnan(low) else f" [{low:.3f}–{high:.3f}]")


def _plain(value: Any) -> Any:
    """As JSON says it: it has no NaN."""
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    return None if isinstance(value, float) and math.isnan(value) else value
