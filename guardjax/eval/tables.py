"""Result rows on disk (`results.json`), in the terminal and in Markdown."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import rich.box
from rich.table import Table

from guardjax.atomic import write_text

THIS_RUN = "this run"
CHECKED_IN = "full runs, checked in"
_SCHEMA = 1


@dataclasses.dataclass(frozen=True)
class ResultRow:
    """One number: a share in [0, 1] (NaN where undefined), its interval and its units."""

    variant: str
    split: str
    metric: str
    value: float
    low: float
    high: float
    n: int
    seed: int | None = None     # None: the mean over all seeds
    source: str = THIS_RUN
    p: float | None = None      # of a difference that was tested (`paired_test.py`)


@dataclasses.dataclass(frozen=True)
class Column:
    """A column of a table: which split and which metric fill it."""

    title: str
    split: str
    metric: str


COLUMNS: tuple[Column, ...] = (
    Column("Ladder macro-F1", "ladder", "macro_f1"),
    Column("F1", "test", "f1"),
    Column("PSS", "test", "pss"),
    Column("Pair acc.", "test", "pair_accuracy"),
    Column("Invalid", "test", "invalid_rate"),
    Column("Retention", "test", "retention"),
)


# Splits on which something is held out -> what it is.
HELD_OUT: Mapping[str, str] = MappingProxyType({
    "test_wordings": "wordings", "test_categories": "categories", "test_shapes": "rule shapes",
    "test_artist": "artist", "test_background": "photos", "test_object": "objects",
})


def columns_of(split: str) -> tuple[Column, ...]:
    """`COLUMNS` for a run that was measured on another split than test."""
    return tuple(dataclasses.replace(column, split=split) if column.split == "test" else column
                 for column in COLUMNS)


def held_out_columns(metric: str) -> tuple[Column, ...]:
    """One metric on test and on every held-out split, side by side."""
    return (Column("test", "test", metric),
            *(Column(title, split, metric) for split, title in HELD_OUT.items()))


def save_results(path: str | Path, rows: Iterable[ResultRow]) -> None:
    """Writes `results.json` in one step, to a millionth. NaN becomes null: JSON has no NaN."""
    objects = [{key: _plain(value) for key, value in dataclasses.asdict(row).items()
                if key != "p" or value is not None} for row in rows]
    lines = ",\n  ".join(json.dumps(row) for row in objects)
    write_text(path, f'{{"schema": {_SCHEMA}, "rows": [\n  {lines}\n]}}\n')


def _plain(value: Any) -> Any:
    if not isinstance(value, float):
        return value
    return None if math.isnan(value) else round(value, 6)


def load_results(path: str | Path, source: str | None = None) -> list[ResultRow]:
    """Reads `results.json`; `source` relabels its rows, such as with `CHECKED_IN`.

    Raises `ValueError`, naming the file, where it is not one of ours.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        if content["schema"] != _SCHEMA:
            raise ValueError(f"schema {content['schema']!r}, expected {_SCHEMA}")
        rows = [ResultRow(**{key: math.nan if value is None and key in ("value", "low", "high")
                             else value for key, value in row.items()})
                for row in content["rows"]]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not a results file: {error!r}") from error
    return [dataclasses.replace(row, source=source) for row in rows] if source else rows


def percent(value: float, decimals: int = 0) -> str:
    """A share as a percentage without the sign, "–" where undefined."""
    return "–" if math.isnan(value) else f"{100 * value:.{decimals}f}"


def chance(p: float | None) -> str:
    """p as people write it: "0.031", "<0.001", "–" where there is none."""
    if p is None or math.isnan(p):
        return "–"
    return f"{p:.3f}" if p >= 0.001 else "<0.001"


def compact(row: ResultRow, decimals: int = 0) -> str:
    """"83 [80–86]": value and interval in per cent."""
    if math.isnan(row.low) or math.isnan(row.high):
        return percent(row.value, decimals)
    return (f"{percent(row.value, decimals)} "
            f"[{percent(row.low, decimals)}–{percent(row.high, decimals)}]")


@dataclasses.dataclass(frozen=True)
class TableLine:
    """One line of a laid-out table; `cells` has one entry a column, None where there is none."""

    variant: str
    source: str
    cells: tuple[ResultRow | None, ...]


def layout(
    rows: Iterable[ResultRow], variants: Sequence[str] | None = None,
    columns: Sequence[Column] = COLUMNS,
) -> list[TableLine]:
    """Arranges seed-averaged rows: variants in the order given, this run before checked-in.

    `variants` defaults to the order of first occurrence; a variant without results is left out.
    """
    found: dict[tuple[str, str], dict[tuple[str, str], ResultRow]] = {}
    for row in rows:
        if row.seed is None:
            found.setdefault((row.variant, row.source), {})[row.split, row.metric] = row
    order = list(variants) if variants is not None else list(dict.fromkeys(v for v, _ in found))
    sources = sorted({source for _, source in found}, key=lambda s: (s != THIS_RUN, s))
    lines = []
    for source in sources:
        for variant in order:
            cells = tuple(found.get((variant, source), {}).get((column.split, column.metric))
                          for column in columns)
            if any(cells):
                lines.append(TableLine(variant, source, cells))
    return lines


def markdown_table(
    rows: Iterable[ResultRow], variants: Sequence[str] | None = None,
    columns: Sequence[Column] = COLUMNS, names: Mapping[str, str] | None = None,
) -> str:
    """The table as GitHub Markdown; `names` maps variants to what people read."""
    lines = layout(rows, variants, columns)
    out = ["| Variant | " + " | ".join(column.title for column in columns) + " |",
           "|---|" + "---:|" * len(columns)]
    for line in lines:
        cells = [compact(cell) if cell else "" for cell in line.cells]
        label = _label(line, lines, names).replace("|", "\\|")
        out.append(f"| {label} | " + " | ".join(cells) + " |")
    return "\n".join(out) + "\n"


def terminal_table(
    rows: Iterable[ResultRow], variants: Sequence[str] | None = None,
    columns: Sequence[Column] = COLUMNS, names: Mapping[str, str] | None = None,
    title: str | None = None,
) -> Table:
    """The table for `rich.console.Console.print`."""
    lines = layout(rows, variants, columns)
    table = Table(title=title, title_justify="left", header_style="bold", pad_edge=False,
                  box=rich.box.SIMPLE_HEAD, padding=0, show_edge=False)
    table.add_column("Variant", min_width=14)
    for column in columns:
        table.add_column(column.title.replace(" ", "\n"), justify="right", min_width=8)
    for line in lines:
        # The interval goes under its value: a terminal of 80 columns has room for seven of them.
        table.add_row(_label(line, lines, names),
                      *(compact(cell).replace(" ", "\n") if cell else "" for cell in line.cells),
                      style=None if line.source == THIS_RUN else "dim")
    return table


def _label(
    line: TableLine, lines: Sequence[TableLine], names: Mapping[str, str] | None
) -> str:
    """Name of a row; it says where its numbers come from unless all are of this run."""
    name = (names or {}).get(line.variant, line.variant)
    mixed = any(other.source != THIS_RUN for other in lines)
    return f"{name} ({line.source})" if mixed else name
