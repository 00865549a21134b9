"""What is in a data set and what is wrong with it, all at once: `guardjax data check`."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from guardjax.data.datasets.duplicates import DISTANCE, Look, Pair, looks_of, pairs_between
from guardjax.data.datasets.reader import DatasetReader
from guardjax.data.datasets.record import DatasetError


@dataclasses.dataclass(frozen=True)
class Check:
    """A data set, looked at row by row and picture by picture.

    Attributes:
      rows, pictures: how many can be used, and how many different ones they say they show.
      labels: policy id -> label -> rows; none of captions.
      categories: category -> label -> rows.
      errors: what is wrong with single rows, which are not counted above where they have no label.
      dropped: rows that were left out on purpose.
      duplicates: pictures of the set that are equal or alike.
      contradictions: equal pictures under one policy with different labels.
      leaks: pictures that another data set has too; the first of a pair is of this one.
      words: of the shortest and of the longest caption, where rows have captions.
    """

    rows: int
    pictures: int
    labels: Mapping[str, Mapping[str, int]]
    categories: Mapping[str, Mapping[str, int]]
    errors: Sequence[str]
    dropped: Sequence[str]
    duplicates: Sequence[Pair]
    contradictions: Sequence[str]
    leaks: Sequence[Pair]
    words: tuple[int, int] | None = None

    @property
    def clean(self) -> bool:
        """Whether a run may trust it: no bad row, no contradiction, no leak."""
        return not (self.errors or self.contradictions or self.leaks)

    def plain(self) -> dict[str, Any]:
        """As JSON says it."""
        return dataclasses.asdict(self) | {"clean": self.clean}


def check_dataset(
    reader: DatasetReader, other: DatasetReader | None = None, *, distance: int = DISTANCE,
    errors: Sequence[str] = (), on_picture: Callable[[], None] = lambda: None,
) -> Check:
    """Opens every picture of `reader` (and of `other`, to look for leaks) and counts.

    `errors` are those that were found when the reader was opened.
    """
    found = list(errors)

    def note(error: DatasetError) -> None:
        found.append(str(error))

    looks = looks_of(reader, note, on_picture)
    others = [] if other is None else looks_of(other, note, on_picture)
    words = [len(record.caption.split()) for record in reader.records if record.caption]
    return Check(
        rows=len(reader), pictures=len(looks),
        labels=_count((r.policy.id, r.label) for r in reader.records if r.label),
        categories=_count((r.category, r.label) for r in reader.records if r.category),
        errors=found, dropped=tuple(reader.dropped),
        duplicates=pairs_between(looks, distance=distance),
        contradictions=_contradictions(reader, looks),
        leaks=pairs_between(looks, others, distance) if other is not None else [],
        words=(min(words), max(words)) if words else None)


def _count(pairs: Any) -> dict[str, dict[str, int]]:
    counts: dict[str, dict[str, int]] = {}
    for (group, label), number in sorted(Counter(pairs).items()):
        counts.setdefault(group, {})[label] = number
    return counts


def _contradictions(reader: DatasetReader, looks: Sequence[Look]) -> list[str]:
    by_row = {look.row_id: look.sha256 for look in looks}
    # Rows with the picture of an earlier row have no look of their own.
    by_image = {record.image_id: by_row[record.row_id] for record in reader.records
                if record.image_id and record.row_id in by_row}
    seen: dict[tuple[str, str], Any] = {}
    found = []
    for record in reader.records:
        picture = by_row.get(record.row_id) or by_image.get(record.image_id)
        if picture is None:
            continue
        earlier = seen.setdefault((picture, record.policy.text), record)
        if earlier.label != record.label:
            found.append(f"{earlier.place} is {earlier.label} and {record.place}, the same picture "
                         f"under the same policy, is {record.label}")
    return found
