"""Training batches of annotated records by index, as `guardjax.data.sources` has them of the world.

Prompts come two by two with opposite labels where the data set has both: one picture under two
policies, if there is any, or two pictures. Captions have no labels: any two are drawn.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from guardjax.data.batching import Batcher
from guardjax.data.datasets import exceptions
from guardjax.data.datasets.reader import DatasetReader
from guardjax.data.datasets.record import (
    LABELS,
    DatasetError,
    Record,
    answered,
    to_example,
)
from guardjax.data.prompts import PromptError, encode_prompt
from guardjax.data.sources import Batch


@dataclasses.dataclass(frozen=True)
class RecordMix:
    """How two records are drawn: shares of all pairs; what is left are two pictures.

    Attributes:
      flips: pairs of one picture that the data set itself has under two labels, where it has any.
      exceptions: pairs of one picture under two of LlavaGuard's exceptions.
    """

    flips: float = 0.5
    exceptions: float = 0.0


class RecordBatches:
    """Batch `i` follows from the seed and `i`, so a position is all that a resume needs."""

    def __init__(
        self, reader: DatasetReader, batcher: Batcher, *, batch: int, num_batches: int, seed: int,
        mix: RecordMix = RecordMix(), teach: bool, think: bool = False,
        rows: slice = slice(None),
    ) -> None:
        """`teach` gives examples the answers that SFT learns; every row is checked to have one.
        `rows` are those of each batch whose arrays are made, see `Batch`; pictures are opened for
        all, since the largest decides the shapes.

        Raises:
          DatasetError: a row that cannot be taught, exceptions from rows that have none, or an odd
            `batch`.
          PromptError: a policy that does not fit into a prompt beside the largest picture, or an
            answer to learn that is too long.
        """
        if batch % 2:
            raise DatasetError(f"batch={batch} is odd; prompts come in pairs, give an even one")
        self._reader, self._batcher, self._mix = reader, batcher, mix
        self._batch, self._num, self._seed = batch, num_batches, seed
        self._teach, self._think, self._rows = teach, think, rows
        records = reader.records
        if teach:
            batcher.check_answers([answered(record, think=think) for record in records])
        check_fits(reader, batcher)
        self._by_label = [np.array([i for i, r in enumerate(records) if r.label == label], int)
                          for label in LABELS]
        self._flips = _flips(reader)
        self._relaxable = [i for i, r in enumerate(records) if exceptions.can_flip(r)]
        if mix.exceptions and not self._relaxable:
            raise DatasetError(
                f"{reader.directory}: exceptions are made of unsafe rows whose policy has parts "
                "that begin with O1 to O9, as LlavaGuard's have, and there is none")

    def __len__(self) -> int:
        return self._num

    def __getitem__(self, index: int) -> Batch:
        rng = np.random.default_rng((self._seed, int(index)))
        records: list[Record] = []
        while len(records) < self._batch:
            records += self._two(rng)
        examples = tuple(answered(record, think=self._think) if self._teach
                         else to_example(record) for record in records)
        tokens, length = self._batcher.answers([[e.answer] for e in examples], self._rows,
                                               ids=[e.example_id for e in examples])
        return Batch(examples, self._batcher.prompts(examples, self._rows), tokens, length)

    def _two(self, rng: np.random.Generator) -> tuple[Record, Record]:
        kind = rng.random()
        if kind < self._mix.exceptions:
            place = self._relaxable[int(rng.integers(len(self._relaxable)))]
            return exceptions.draw_flip(self._reader[place], rng)
        if kind < self._mix.exceptions + self._mix.flips and self._flips:
            sides = self._flips[int(rng.integers(len(self._flips)))]
        elif all(len(side) for side in self._by_label):
            sides = self._by_label
        else:       # one label only, or none: nothing can be balanced
            sides = (range(len(self._reader)),) * 2
        first, second = (self._reader[int(side[int(rng.integers(len(side)))])] for side in sides)
        return first, second


def check_fits(reader: DatasetReader, batcher: Batcher) -> None:
    """That every policy fits into a prompt beside the largest picture there can be.

    Raises:
      PromptError: one does not; names the row of the longest.
    """
    units = batcher.patches.max_pixels // batcher.patches.unit**2
    blank = np.zeros((1, 1, 3), np.uint8)
    by_text = {record.policy.text: record for record in reader.records}
    for text in sorted(by_text, key=lambda text: -len(batcher.tokenizer.untrusted(text))):
        record = by_text[text]
        example = dataclasses.replace(to_example(record), image=blank)
        try:
            encode_prompt(batcher.tokenizer, example, units, batcher.prompt_buckets)
        except PromptError as error:
            raise PromptError(f"{record.place}: {error}") from error


def _flips(reader: DatasetReader) -> list[tuple[list[int], list[int]]]:
    """The rows of each picture that has both labels: (safe, unsafe)."""
    found: dict[str, tuple[list[int], list[int]]] = {}
    for i, record in enumerate(reader.records):
        if record.image_id and record.label:
            found.setdefault(record.image_id, ([], []))[LABELS.index(record.label)].append(i)
    return [sides for sides in found.values() if all(sides)]
