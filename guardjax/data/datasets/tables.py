"""Rows of a table on disk: Parquet, CSV, TSV, JSON lines or a JSON list, as the hub has them.

Everything but embedded pictures is read at once; pictures are read when they are asked for.
"""

from __future__ import annotations

import csv
import dataclasses
import functools
import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from guardjax.data.datasets.record import DatasetError

# A row group of the hub has 100 pictures or 100 MB; two, so that a turn of the page costs nothing.
_GROUPS_KEPT = 2
_LFS = b"version https://git-lfs"


@dataclasses.dataclass(frozen=True)
class Row:
    """One row: `number` counts from 1 in `file`. `picture` gives what is embedded, if anything.

    An embedded picture is its file's bytes, or the path that stands in their place.
    """

    values: Mapping[str, Any]
    file: Path
    number: int
    picture: Callable[[], bytes | str | None] | None = None

    @property
    def place(self) -> str:
        """File and row, for people."""
        return f"{self.file}, row {self.number}"


def read_rows(file: Path, image: str | None = None, delimiter: str = "") -> list[Row]:
    """All rows of a table.

    Args:
      file: its suffix says what it is.
      image: the column with embedded pictures, which only Parquet can have.
      delimiter: of a CSV file; by default a comma, or a tab for `.tsv`.

    Raises:
      DatasetError: a file that is not what its suffix says, or another suffix.
    """
    try:
        with file.open("rb") as opened:
            if opened.read(len(_LFS)) == _LFS:
                raise DatasetError(f"{file} is a Git LFS pointer in the place of the data; fetch "
                                   "it with `git lfs pull` or `hf download`")
        if file.suffix == ".parquet":
            return _parquet(file, image)
        if file.suffix in (".csv", ".tsv", ".txt"):
            return _csv(file, delimiter or ("\t" if file.suffix != ".csv" else ","))
        if file.suffix == ".jsonl":
            return _json_lines(file)
        if file.suffix == ".json":
            return _json(file)
    except (pa.ArrowException, OSError, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{file} cannot be read ({error}); fetch it again") from error
    raise DatasetError(f"{file}: {file.suffix or 'no suffix'} is none of .parquet, .csv, .tsv, "
                       ".jsonl and .json")


def check_columns(rows: list[Row], wanted: Collection[str], title: str) -> None:
    """Raises `DatasetError` where a table lacks a column; rows of one file have the same ones."""
    for file in dict.fromkeys(row.file for row in rows):
        there = next(row.values for row in rows if row.file == file)
        missing = [name for name in wanted if name not in there]
        if missing:
            raise DatasetError(
                f"{file} has no column {', '.join(map(repr, missing))}, which {title} has; its "
                f"columns are {', '.join(map(repr, there))}. Is it another data set?")


def _parquet(file: Path, image: str | None) -> list[Row]:
    table = pq.ParquetFile(file)
    names = table.schema_arrow.names
    columns = [name for name in names if name != image]
    values = table.read(columns=columns).to_pylist()
    pictures = None
    if image in names:
        pictures = _Pictures(file, image)
        for each in values:
            each[image] = None      # the column is there; its content is asked for by row
    return [Row(each, file, i + 1, functools.partial(pictures, i) if pictures else None)
            for i, each in enumerate(values)]


class _Pictures:
    """The picture of row i of a Parquet file; threads may share it."""

    def __init__(self, file: Path, column: str) -> None:
        self._file, self._column = file, column
        self._table = pq.ParquetFile(file)
        sizes = [self._table.metadata.row_group(g).num_rows
                 for g in range(self._table.num_row_groups)]
        self._starts = np.concatenate([[0], np.cumsum(sizes)])
        self._kept: OrderedDict[int, pa.ChunkedArray] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, index: int) -> bytes | str | None:
        group = int(np.searchsorted(self._starts, index, side="right")) - 1
        with self._lock:
            column = self._kept.get(group)
            if column is None:
                read = self._table.read_row_group(group, columns=[self._column])
                column = self._kept[group] = read.column(self._column)
                if len(self._kept) > _GROUPS_KEPT:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(group)
            value = column[index - int(self._starts[group])].as_py()
        if isinstance(value, Mapping):      # the hub's type "image"
            return value.get("bytes") or value.get("path")
        return value

    def __reduce__(self) -> tuple[Any, ...]:
        return _Pictures, (self._file, self._column)    # a worker process opens its own


def _csv(file: Path, delimiter: str) -> list[Row]:
    rows = []
    with file.open(encoding="utf-8-sig", newline="") as opened:
        reader = csv.DictReader(opened, delimiter=delimiter, strict=True)
        for number, values in enumerate(reader, start=1):
            if None in values or None in values.values():
                raise DatasetError(f"{file}, row {number} (line {reader.line_num}) has not the "
                                   f"{len(reader.fieldnames or ())} fields of the header; is a "
                                   "quote or a delimiter missing?")
            rows.append(Row(values, file, number))
    return rows


def _json_lines(file: Path) -> list[Row]:
    rows = []
    for number, line in enumerate(file.read_text(encoding="utf-8").split("\n"), start=1):
        if line.strip():
            rows.append(_object(file, number, line))
    return rows


def _object(file: Path, number: int, line: str) -> Row:
    try:
        values = json.loads(line)
    except ValueError as error:
        raise DatasetError(f"{file}, row {number} is not JSON: {error}") from error
    if not isinstance(values, dict):
        raise DatasetError(f"{file}, row {number} is no JSON object")
    return Row(values, file, number)


def _json(file: Path) -> list[Row]:
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DatasetError(f"{file} is not JSON: {error}") from error
    if not isinstance(values, list) or not all(isinstance(each, dict) for each in values):
        raise DatasetError(f"{file} is no JSON list of objects")
    return [Row(each, file, i + 1) for i, each in enumerate(values)]
