"""The same picture twice: by its bytes, and by what it looks like.

Looks are compared by two perceptual hashes of 64 bits, pHash (low frequencies) and dHash (slopes).
Two pictures are alike where both differ in few bits: one alone finds flat pictures alike that are
not. An edited pair, which is meant to be alike, is found as well.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Sequence

import imagehash
import numpy as np
from PIL import Image

from guardjax.data.datasets.reader import DatasetReader
from guardjax.data.datasets.record import DatasetError

DISTANCE = 6        # bits of 64: photographs saved again differ in up to 4, others in 24 and more
_BLOCK = 1024       # pictures compared at a time: 8 MB of distances


@dataclasses.dataclass(frozen=True)
class Look:
    """One picture of a data set: the first row that has it, and its hashes."""

    place: str
    row_id: str
    split: str
    sha256: str
    phash: int
    dhash: int


@dataclasses.dataclass(frozen=True)
class Pair:
    """Two pictures that are equal (`distance` -1) or alike (bits in which they differ)."""

    first: str
    second: str
    distance: int

    @property
    def exact(self) -> bool:
        """Whether the files are equal, byte by byte."""
        return self.distance < 0


def look_at(pixels: np.ndarray) -> tuple[int, int]:
    """(pHash, dHash) of a picture `[H, W, 3]` uint8, each 64 bits."""
    picture = Image.fromarray(pixels)
    return _bits(imagehash.phash(picture)), _bits(imagehash.dhash(picture))


def looks_of(
    reader: DatasetReader, on_error: Callable[[DatasetError], None],
    on_picture: Callable[[], None] = lambda: None,
) -> list[Look]:
    """Opens every picture of a data set once; what cannot be opened goes to `on_error`.

    Rows that say that they have the same picture (one picture under many policies) count once.
    """
    found: dict[str, Look] = {}
    for i, record in enumerate(reader.records):
        key = record.image_id or record.row_id
        if key not in found:
            try:
                pixels, data = reader[i].image, reader.picture_bytes(i)
                found[key] = Look(record.place, record.row_id, record.split,
                                  hashlib.sha256(data).hexdigest(), *look_at(pixels))
            except DatasetError as error:
                on_error(error)
        on_picture()
    return list(found.values())


def pairs_between(
    looks: Sequence[Look], others: Sequence[Look] | None = None, distance: int = DISTANCE
) -> list[Pair]:
    """Equal and alike pictures between two data sets, or within one where `others` is None.

    In order of the first, then of the second.
    """
    same = others is None
    others = looks if same else others
    theirs = _columns(others)
    pairs = []
    for start in range(0, len(looks), _BLOCK):
        block = looks[start:start + _BLOCK]
        bits = np.zeros((len(block), len(others)), np.uint8)
        for mine, other in zip(_columns(block), theirs, strict=True):
            np.maximum(bits, np.bitwise_count(mine[:, None] ^ other[None]), out=bits)
        for i, j in np.argwhere(bits <= distance):
            if same and j <= start + i:
                continue
            a, b = block[i], others[j]
            equal = a.sha256 == b.sha256
            pairs.append(Pair(a.place, b.place, -1 if equal else int(bits[i, j])))
    return pairs


def _columns(looks: Iterable[Look]) -> tuple[np.ndarray, np.ndarray]:
    looks = list(looks)
    return (np.array([look.phash for look in looks], np.uint64),
            np.array([look.dhash for look in looks], np.uint64))


def _bits(found: imagehash.ImageHash) -> int:
    return int.from_bytes(np.packbits(found.hash).tobytes(), "big")
