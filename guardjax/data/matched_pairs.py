"""Training batches of matched pairs: one picture, a policy that passes it, one that blocks it.

As `sources.BatchSource`, but every two prompts are one picture and the order is fixed, so that a
loss may hold a prompt against its neighbour.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from guardjax.data import tasks
from guardjax.data.batching import Batcher
from guardjax.data.sources import Batch, DrawPolicy, SourceError
from guardjax.types import PolicyExample
from guardjax.world.builder import WorldRecord

POLICIES_A_PICTURE = 4      # drawn before a picture is skipped, as in `sources`
_PICTURES = 100             # skipped in a row before giving up


class MatchedPairs:
    """Batch `i` follows from the seed and `i`. Row 2k passes, row 2k + 1 blocks the same picture.

    A picture that `POLICIES_A_PICTURE` drawn policies all judge alike is skipped for another one.
    """

    def __init__(self, records: Sequence[WorldRecord], draw_policy: DrawPolicy, batcher: Batcher,
                 *, batch: int, num_batches: int, seed: int, rows: slice = slice(None)) -> None:
        """`batch` counts prompts and must be even. `rows` as in `BatchSource`.

        Raises:
          SourceError: it is odd.
        """
        if batch % 2:
            raise SourceError(f"batch={batch} is odd; matched prompts come in pairs, give an even "
                              "one")
        self._records, self._draw, self._batcher = records, draw_policy, batcher
        self._batch, self._num, self._seed, self._rows = batch, num_batches, seed, rows

    def __len__(self) -> int:
        return self._num

    def __getitem__(self, index: int) -> Batch:
        """
        Raises:
          SourceError: no picture of many gets two labels from the policies.
        """
        rng = np.random.default_rng((self._seed, int(index)))
        examples = tuple(example for _ in range(self._batch // 2) for example in self._pair(rng))
        tokens, length = self._batcher.answers([[e.answer] for e in examples], self._rows,
                                               ids=[e.example_id for e in examples])
        return Batch(examples, self._batcher.prompts(examples, self._rows), tokens, length)

    def _pair(self, rng: np.random.Generator) -> tuple[PolicyExample, PolicyExample]:
        for _ in range(_PICTURES):
            record = self._records[int(rng.integers(len(self._records)))]
            found: dict[str, PolicyExample] = {}
            for _ in range(POLICIES_A_PICTURE):
                example = tasks.judge(record, *self._draw(rng, record.objects))
                found.setdefault(example.label, example)
                if len(found) == 2:
                    return found["safe"], found["unsafe"]
        raise SourceError(
            f"none of {_PICTURES} pictures gets two labels from {POLICIES_A_PICTURE} policies "
            "each; build more pictures, or choose policies that flag what they show")
