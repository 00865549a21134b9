"""Pictures with captions to be learned: what `guardjax pairs recaption` writes, or a table like it.

    metadata.jsonl (or metadata.csv)    file_name, relative to the folder, and caption

They are for training alone ("train" is the only split): a caption holds no verdict, so nothing is
measured by it.
"""

from __future__ import annotations

from pathlib import Path

from guardjax.data.datasets.names import CAPTIONS
from guardjax.data.datasets.record import DatasetError
from guardjax.data.datasets.schema import Facts, Schema
from guardjax.data.datasets.tables import Row, read_rows

_TABLES = ("metadata.jsonl", "metadata.csv")
_SPLIT = "train"


def _load(directory: Path, split: str) -> list[Row]:
    if split != _SPLIT:
        raise DatasetError(f"captions have no split {split!r}: they are for training, ask for "
                           f"{_SPLIT!r}")
    for name in _TABLES:
        if (directory / name).is_file():
            return read_rows(directory / name)
    raise DatasetError(f"{directory} has no {' and no '.join(_TABLES)}; `guardjax pairs recaption` "
                       "writes one, with the columns file_name and caption")


def _read(row: Row) -> Facts:
    name, caption = row.values["file_name"], " ".join(row.values["caption"].split())
    if not caption:
        raise DatasetError(f"{row.place}: the caption of {name!r} is empty; write one, or remove "
                           "the row")
    return Facts(row_id=name, image_id=name, files=(name,), caption=caption)


CAPTIONED = Schema(
    name=CAPTIONS, title="captions of your own pictures", home="",
    columns={"file_name": "text", "caption": "text"}, optional={"draft": "text"},
    label="", labels={}, read=_read, load=_load, image=None, split=_SPLIT)
