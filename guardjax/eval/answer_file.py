"""Answers of one model to the rows of one data set, or to questions over the policy world, kept as
they come, so that none is asked twice.

The first line of a file says whose answers to which rows it has (`Pins`); every further line is a
prediction. A run that was killed leaves whole lines and at most one torn one, and goes on from
them; answers of another model, or to other rows, are refused. Several hosts may ask a part each
(`answer_parts.py`); the file of all has their answers, too.
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
from guardjax.eval.answer_parts import Part, parts_of
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
    """The stored answers under one set of pins, to all rows or to a part of them.

    Raises:
      AnswersMismatch: the file has answers under other pins, or is no file of answers. Nothing was
        asked and nothing is changed.
    """

    def __init__(self, path: str | Path, pins: Pins, cells: Sequence[Cell],
                 part: Part = Part()) -> None:
        """`cells` are those of all rows, in order: no two are equal. `path` is the file of all."""
        self.path, self.pins, self._cells = part.file(Path(path)), pins, tuple(cells)
        self._places = part.places(len(self._cells))
        self._rows: dict[Cell, Prediction] = {}
        lines, torn = _whole_lines(self.path)
        if lines:
            self._rows = self._read(self.path, lines)
        if torn or not lines:
            write_text(self.path, "".join(line + "\n" for line in lines or [_header(pins)]))
        if part == Part():
            for file in parts_of(self.path):    # only read: its host may still be writing
                if lines := _whole_lines(file)[0]:
                    self._rows = self._read(file, lines) | self._rows

    def __len__(self) -> int:
        """How many rows there are, answered or not."""
        return len(self._places)

    @property
    def missing(self) -> list[int]:
        """Places among all rows of those that are not answered yet."""
        return [place for place in self._places if self._cells[place] not in self._rows]

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
        return [self._rows[self._cells[place]] for place in self._places]

    def _read(self, path: Path, lines: Sequence[str]) -> dict[Cell, Prediction]:
        found: dict[Cell, Prediction] = {}
        try:
            kept = Pins(**json.loads(lines[0])["pins"])
        except (KeyError, TypeError, ValueError) as error:
            raise AnswersMismatch(f"{path}, line 1: not stored answers ({error!r}); give "
                                  "another folder with --out, or remove the file") from error
        if changed := changed_pins(kept, self.pins, _NAMES):
            raise AnswersMismatch(
                f"{path} holds answers of another run: {'; '.join(changed.values())}. Give "
                "another folder with --out, or remove the file to ask anew")
        known = set(self._cells)
        for number, line in enumerate(lines[1:], start=2):
            place = f"{path}, line {number}"
            try:
                row = prediction_from_json(json.loads(line))
            except (TypeError, ValueError) as error:
                raise AnswersMismatch(f"{place}: not a prediction ({error}); remove the line to "
                                      "have the row asked anew") from error
            if row.model != self.pins.model:
                raise AnswersMismatch(f"{place}: an answer of model {row.model!r} among those of "
                                      f"{self.pins.model!r}; remove the line")
            cell = _cell(row)
            if cell not in known or cell in found:
                what = "is answered twice" if cell in known else "is none of the rows"
                raise AnswersMismatch(f"{place}: {row.example_id!r} of split {row.split!r} {what}; "
                                      "remove the line")
            found[cell] = row
        return found


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
    mine |= {part.name for name in mine for part in parts_of(folder / name)}
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
