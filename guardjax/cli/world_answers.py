"""A model's answers to questions over the policy world: what is stored, and the others asked.

An evaluation in a folder of its own has them in `answers/`, where those of another model are
refused. The rows of an experiment and the demo train models anew in their folders; there a file's
name says whose answers to which questions it has, and others are left alone.
"""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Iterator, Sequence

from rich.console import Console

from guardjax.cli.kept_answers import whole_answers
from guardjax.eval.answer_file import AnswerFile, Pins, file_name
from guardjax.eval.guard import Guard
from guardjax.eval.harness import Question, ask_batches, digest
from guardjax.eval.records import Prediction

ANSWERS = "answers"


def pins_of(world: pathlib.Path, split: str, questions: Sequence[Question], name: str,
            model_hash: str, asked: str = "", seed: int = 0) -> Pins:
    """What answers to questions over a build of the world depend on.

    Args:
      world: the build's folder, which is named by a hash of its recipe.
      split: what is looked at.
      questions: all of them, in order.
      name, model_hash, seed: the model's name in tables, the hash of its weights, its seed.
      asked: options that change an answer.
    """
    return Pins(name, model_hash, world.name, split, digest(questions),
                ", ".join(part for part in (asked, f"seed {seed}") if part))


def open_answers(file: pathlib.Path, pins: Pins, questions: Sequence[Question]) -> AnswerFile:
    """The stored answers. Raises `AnswersMismatch`: those that are there are under other pins."""
    return AnswerFile(file, pins, [(each.split, each.example.example_id) for each in questions])


def own_file(folder: pathlib.Path, pins: Pins) -> pathlib.Path:
    """A file whose name says under which pins its answers are."""
    return folder / ANSWERS / f"{pins.split}-{pins.model}-{pins.rows}-{file_name(pins.variant)}"


def ask_world(stored: AnswerFile, load: Callable[[], Guard], questions: Sequence[Question],
              out: pathlib.Path, console: Console, seed: int = 0) -> list[Prediction]:
    """The answers to all questions, in order; see `whole_answers`.

    They are equal, bit for bit, to those of a run that nobody stopped.

    Raises:
      ScoringError: a guard that scores verdicts is asked something that is answered in words.
    """
    def ask(guard: Guard) -> Iterator[list[Prediction]]:
        answered = set(range(len(questions))).difference(stored.missing)
        return ask_batches(guard, questions, variant=stored.pins.variant, seed=seed,
                           answered=answered)

    return whole_answers(stored, load, ask, out, console, seed)
