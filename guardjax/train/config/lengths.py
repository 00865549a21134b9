"""How long prompts and answers may be."""

from __future__ import annotations

import dataclasses

from guardjax.data.lengths import check_buckets


@dataclasses.dataclass(frozen=True)
class LengthsConfig:
    """Lengths in tokens that batches are padded to: the shortest that holds all of a batch.

    Each that occurs is a compiled program; a prompt or an answer longer than the last is an error.
    Whatever is longer than usual goes with the trained model, so that it can be asked as it was
    trained.
    """

    prompt: tuple[int, ...] = ()        # with the picture's; empty: those of the base's folder
    answer: tuple[int, ...] = ()        # to learn, the end included; empty: those of the base's
                                        # folder. The trained guard may write as many as the last
                                        # (at least 32), whatever its base may

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            check_buckets(field.name, getattr(self, field.name))
