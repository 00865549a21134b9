"""P(unsafe) in a terminal, a report and a file."""

from __future__ import annotations

import dataclasses
import math
import pathlib
from collections.abc import Sequence

import rich.box
from rich.console import Console
from rich.table import Table

from guardjax.eval.calibration import BINS, Calibration, calibrate
from guardjax.eval.records import Prediction
from guardjax.eval.report import PlainTable
from guardjax.json_file import write_json

CALIBRATION_FILE = "calibration.json"
_HEAD = ("Split", "n", "AUROC", "Brier", "ECE", "TPR at FPR 1%", "TPR at FPR 5%")


def show_calibration(console: Console, predictions: Sequence[Prediction],
                     out: pathlib.Path) -> list[PlainTable]:
    """Writes and prints what P(unsafe) is worth; nothing where no prediction has one.

    Of several variants each has lines of its own, their names before the split's.

    Returns:
      The table for a report, or none.
    """
    several = len({row.variant for row in predictions}) > 1
    found = calibrate(dataclasses.replace(row, split=f"{row.variant}, {row.split}") if several
                      else row for row in predictions)
    if not found:
        return []
    write_json(out / CALIBRATION_FILE, {"bins": BINS, "splits": [
        {key: None if isinstance(value, float) and math.isnan(value) else value
         for key, value in dataclasses.asdict(each).items()} for each in found]})
    lines = [_line(each) for each in found]
    table = Table(*_HEAD, title="P(unsafe)", title_justify="left", box=rich.box.SIMPLE_HEAD)
    for line in lines:
        table.add_row(*line)
    console.print(table)
    return [PlainTable("P(unsafe)", _HEAD, lines)]


def _line(each: Calibration) -> tuple[str, ...]:
    numbers = (each.auroc, each.brier, each.ece, each.tpr_at_fpr_1, each.tpr_at_fpr_5)
    return (each.split, str(each.n), *("" if math.isnan(n) else f"{n:.3f}" for n in numbers))
