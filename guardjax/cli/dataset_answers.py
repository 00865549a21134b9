"""A model's answers to a data set: those that are stored, and the others asked and stored."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Iterator

from rich.console import Console

from guardjax.cli.kept_answers import whole_answers
from guardjax.data.datasets.reader import DatasetReader
from guardjax.data.datasets.record import example_id
from guardjax.eval.answer_file import AnswerFile, Pins, file_name
from guardjax.eval.answer_parts import Part
from guardjax.eval.dataset_results import answer_rows
from guardjax.eval.guard import Guard
from guardjax.eval.records import Prediction


def open_answers(folder: pathlib.Path, reader: DatasetReader, name: str, model_hash: str,
                 asked: str = "", part: Part = Part()) -> AnswerFile:
    """The answers of a model that are stored in a folder.

    Args:
      folder: where every model has a file.
      reader: what is asked.
      name, model_hash: the model's name in tables, and the hash of its weights.
      asked: options that change an answer.
      part: of the rows, what this process asks.

    Raises:
      AnswersMismatch: those that are there are of another model, or to other rows or pictures.
      DatasetError: a picture cannot be read.
    """
    pins = Pins(name, model_hash, reader.schema.name, reader.split, reader.digest_with_pictures,
                asked)
    cells = [(reader.split, example_id(record)) for record in reader.records]
    return AnswerFile(folder / file_name(name), pins, cells, part)


def all_answers(stored: AnswerFile, reader: DatasetReader, load: Callable[[], Guard],
                out: pathlib.Path, console: Console) -> list[Prediction]:
    """The answers to all rows, in order; only what is missing is asked, and `load` called for it.

    See `whole_answers`.

    Raises:
      DatasetError: a picture cannot be opened.
    """
    def ask(guard: Guard) -> Iterator[list[Prediction]]:
        return answer_rows(guard, reader, stored.pins.variant, stored.missing)

    return whole_answers(stored, load, ask, out, console)
