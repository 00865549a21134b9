"""A JSON-lines file that can be cut back to a known number of lines."""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from guardjax.train.disk import explain_full_disk
from guardjax.train.workdir import write_atomically


class JsonLinesFile:
    """Appends records; knows how many lines it has written.

    Records must be strict JSON: no NaN, no infinity (see `metrics.py`, which writes null).
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = pathlib.Path(path)
        self.num_lines = len(_whole_lines(self.path))

    def append(self, record: Mapping[str, Any]) -> None:
        """Writes one line and flushes it to the operating system."""
        line = json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n"
        with explain_full_disk(self.path), open(self.path, "a", encoding="utf-8") as file:
            file.write(line)
        self.num_lines += 1

    def sync(self) -> None:
        """Makes sure that the lines survive a power cut."""
        if self.path.exists():
            with open(self.path, "a", encoding="utf-8") as file:
                os.fsync(file.fileno())

    def truncate(self, num_lines: int) -> None:
        """Keeps the first `num_lines` lines; drops the rest, and a last line without its end.

        Raises:
          ValueError: if the file has fewer lines than that.
        """
        lines = _whole_lines(self.path)
        if len(lines) < num_lines:
            raise ValueError(f"{self.path} has {len(lines)} lines, but the checkpoint was written "
                             f"after {num_lines}: the file was changed or lost")
        if self.path.exists():
            write_atomically(self.path, "".join(lines[:num_lines]))
        self.num_lines = num_lines


def read_jsonl(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Returns the records of all complete lines; none if there is no file.

    Raises:
      ValueError: naming the line that holds something else than a JSON object.
    """
    records = []
    for number, line in enumerate(_whole_lines(pathlib.Path(path)), start=1):
        try:
            record = json.loads(line)
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: not JSON: {error}") from error
        if not isinstance(record, dict):
            raise ValueError(f"{path}, line {number}: not a JSON object")
        records.append(record)
    return records


def _whole_lines(path: pathlib.Path) -> list[str]:
    if not path.exists():
        return []
    # Not splitlines: JSON may hold U+2028 and the like inside a line.
    return [part + "\n" for part in path.read_text("utf-8").split("\n")[:-1]]
