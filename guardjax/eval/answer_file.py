"""Answers of one model to the rows of one data set, or to questions over the policy world, kept as
they come, so that none is asked twice.

The first line of a file says whose answers to which rows it has (`Pins`); every further line is a
prediction. A run that was killed leaves whole lines and at most one torn one, and goes on from
them; answers of another model, or to other rows, are refused.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from guardjax.atomic import write_text
from guardjax.eval.pins import changed_pins
from guardjax.eval.records import Prediction, prediction_from_json


class AnswersMismatch(ValueError):
    """Stored answers are not those of this model to these rows."""


@dataclasses.dataclass(frozen=True)
class Pins:
    """What stored answers depend on; equal pins, equal answers.

    Attributes:
      variant: the model's name in tables.
      model: hash of its weights.
      dataset, split: what was asked: a reader's name, or a build of the policy world.
      rows: hash of the rows' ids, labels, policies and pictures
        (`DatasetReader.digest_with_pictures`), or of questions (`harness.digest`).
      asked: how: whatever options of the command change an answer.
    """

    variant: str
    model: str
    dataset: str
    split: str
    rows: str
    asked: str = ""


Cell = tuple[str, str]      # split and example id: one picture may be asked about for two splits

_NAMES = {"variant": "name of the model", "model": "model (hash of its weights)",
          "rows": "rows (hash of ids, labels, policies and pictures)", "asked": "way of asking"}


class AnswerFile:
    """The stored answers under one set of pins.

    Raises:
      AnswersMismatch: the file has answers under other pins, or is no file of answers. Nothing was
        asked and nothing is changed.
    """

    def __init__(self, path: str | Path, pins: Pins, cells: Sequence[Cell]) -> None:
        """`cells` are those of all rows, in order: no two are equal."""
        self.path, self.pins, self._cells = Path(path), pins, tuple(cells)
        self._rows: dict[Cell, Prediction] = {}
        lines, torn = _whole_lines(self.path)
        if lines:
            self._read(lines)
        if torn or not lines:
            write_text(self.path, "".join(line + "\n" for line in lines or [_header(pins)]))

    def __len__(self) -> int:
        """How many rows there are, answered or not."""
        return len(self._cells)

    @property
    def missing(self) -> list[int]:
        """Places of the rows that are not answered yet."""
        return [place for place, cell in enumerate(self._cells) if cell not in self._rows]

    def append(self, rows: Iterable[Prediction]) -> None:
        """Keeps answers against a crash of this process and of the machine."""
        rows = list(rows)
        with open(self.path, "a", encoding="utf-8", newline="\n") as file:
            file.writelines(json.dumps(dataclasses.asdict(row)) + "\n" for row in rows)
            file.flush()
            os.fsync(file.fileno())
        self._rows |= {_cell(row): row for row in rows}

    def in_order(self) -> list[Prediction]:
        """All answers, in the order of the rows. Raises `KeyError` where one is missing."""
        return [self._rows[cell] for cell in self._cells]

    def _read(self, lines: Sequence[str]) -> None:
        try:
            kept = Pins(**json.loads(lines[0])["pins"])
        except (KeyError, TypeError, ValueError) as error:
            raise AnswersMismatch(f"{self.path}, line 1: not stored answers ({error!r}); give "
                                  "another folder with --out, or remove the file") from error
        if changed := changed_pins(kept, self.pins, _NAMES):
            raise AnswersMismatch(
                f"{self.path} holds answers of another run: {'; '.join(changed.values())}. Give "
                "another folder with --out, or remove the file to ask anew")
        known = set(self._cells)
        for number, line in enumerate(lines[1:], start=2):
            place = f"{self.path}, line {number}"
            try:
                row = prediction_from_json(json.loads(line))
            except (TypeError, ValueError) as error:
                raise AnswersMismatch(f"{place}: not a prediction ({error}); remove the line to "
                                      "have the row asked anew") from error
            if row.model != self.pins.model:
                raise AnswersMismatch(f"{place}: an answer of model {row.model!r} among those of "
                                      f"{self.pins.model!r}; remove the line")
            cell = _cell(row)
            if cell not in known or cell in self._rows:
                what = "is answered twice" if cell in known else "is none of the rows"
                raise AnswersMismatch(f"{place}: {row.example_id!r} of split {row.split!r} {what}; "
                                      "remove the line")
            self._rows[cell] = row


def file_name(variant: str) -> str:
    """A file's name for a model's name, which may be a path; different names, different files."""
    kept = re.sub(r"[^\w.-]+", "-", variant).strip("-.")[-60:]
    return f"{kept}-{hashlib.sha256(variant.encode()).hexdigest()[:6]}.jsonl"


def check_only(folder: Path, models: Mapping[str, str]) -> None:
    """That a folder has answers of these models (name -> hash of the weights) alone.

    Raises:
      AnswersMismatch: another evaluation was written there; names it, and what is measured now.
    """
    mine = {file_name(variant) for variant in models}
    now = ", ".join(f"{variant!r} (hash {model})" for variant, model in models.items())
    for path in sorted(folder.glob("*.jsonl")):
        if path.name in mine:
            continue
        lines, _ = _whole_lines(path)
        try:
            pins = Pins(**json.loads(lines[0])["pins"])
            whose = f"model {pins.variant!r} (hash {pins.model})"
        except (IndexError, KeyError, TypeError, ValueError):
            whose = "something else"
        raise AnswersMismatch(f"{path} holds answers of {whose}, which is not measured now; "
                              f"measured is {now}: give another folder with --out")


def _cell(row: Prediction) -> Cell:
    return row.split, row.example_id


def _header(pins: Pins) -> str:
    return json.dumps({"pins": dataclasses.asdict(pins)})


def _whole_lines(path: Path) -> tuple[list[str], bool]:
    """Lines that were written to their end, and whether a torn one follows them."""
    if not path.exists():
        return [], False
    *lines, rest = path.read_text(encoding="utf-8", errors="replace").split("\n")
    return lines, bool(rest)
