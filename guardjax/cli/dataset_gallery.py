"""Pictures of a data set for a page: a few, opened when they are shown, blurred until asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from guardjax.data.datasets.reader import DatasetReader
from guardjax.data.datasets.record import example_id
from guardjax.eval.gallery import Case, Picture, gallery_cases
from guardjax.eval.records import Prediction

PICTURES_SHOWN = 24     # with 384 pixels each a page stays far below 10 MB (report.py)


def dataset_cases(predictions: Sequence[Prediction], reader: DatasetReader,
                  limit: int = PICTURES_SHOWN) -> list[Case]:
    """Cases for the gallery of a report; the last variant's answers decide which.

    Raises:
      DatasetError: a picture that is to be shown cannot be opened.
    """
    variants = list(dict.fromkeys(row.variant for row in predictions))
    policies = {record.policy.id: (record.policy.id, record.policy.text)
                for record in reader.records}
    notes = {row.cluster: record.category for row, record in zip(
        predictions, reader.records, strict=False) if record.category}
    return gallery_cases(predictions, _Pictures(predictions, reader), policies, variants=variants,
                         limit=limit, notes=notes)


class _Pictures(Mapping[str, Picture]):
    """Image id -> picture, opened when it is looked up."""

    def __init__(self, predictions: Sequence[Prediction], reader: DatasetReader) -> None:
        places = {example_id(record): place for place, record in enumerate(reader.records)}
        self._reader = reader
        self._places: dict[str, int] = {}
        for row in predictions:
            self._places.setdefault(row.image_id, places[row.example_id])

    def __getitem__(self, image_id: str) -> Picture:
        record = self._reader[self._places[image_id]]
        return Picture(record.image, image_id, veiled=True)

    def __contains__(self, image_id: object) -> bool:
        return image_id in self._places

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)
