"""One picture of the policy world with everything that is known about it, and its stored form."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from guardjax.world import catalogue
from guardjax.world.edits import EditedPair
from guardjax.world.language import caption, questions
from guardjax.world.scene import render

if TYPE_CHECKING:
    from guardjax.policies.condition import Attributes

# Level 6 costs half as much time again and saves a twentieth of the space.
_COMPRESSION = 2
ROLES = ("before", "after")


@dataclasses.dataclass(frozen=True, eq=False)
class WorldRecord:
    """One member of an edited pair."""

    image: np.ndarray                       # [H, W, 3] uint8
    attributes: Attributes
    scene_id: str                           # "test-00012-before"
    pair_id: str                            # "test-00012"
    role: str                               # "before" or "after"
    edit_kind: str                          # one of edits.KINDS
    caption: str
    questions: tuple[tuple[str, str], ...]
    mask: np.ndarray                        # [H, W] bool, where the pair's members may differ
    split: str
    objects: tuple[str, ...]                # names in reading order
    place: str
    light: str
    photograph: str
    artist: str


def pair_records(pair: EditedPair, pair_id: str) -> tuple[WorldRecord, WorldRecord]:
    """Both members of a pair, rendered: (before, after)."""
    before, after = (
        WorldRecord(
            image=render(scene),
            attributes=scene.attributes(),
            scene_id=f"{pair_id}-{role}",
            pair_id=pair_id,
            role=role,
            edit_kind=pair.kind,
            caption=caption(scene),
            questions=tuple(questions(scene, scene.seed)),
            mask=pair.mask,
            split=scene.split,
            objects=scene.names,
            place=scene.place,
            light=scene.light,
            photograph=scene.photograph,
            artist=scene.artist,
        )
        for role, scene in zip(ROLES, (pair.before, pair.after), strict=True)
    )
    return before, after


def encode(record: WorldRecord) -> dict[str, Any]:
    """The stored form: pictures as PNG files in memory, the rest as text."""
    return {
        "image": _png(record.image),
        "mask": _png(record.mask.astype(np.uint8) * 255),
        "scene_id": record.scene_id,
        "pair_id": record.pair_id,
        "role": record.role,
        "edit_kind": record.edit_kind,
        "attributes": json.dumps({
            "objects": record.objects, "context": {"place": record.place, "light": record.light},
        }),
        "caption": record.caption,
        "questions": json.dumps(record.questions),
        "photograph": record.photograph,
        "artist": record.artist,
    }


def decode(stored: Mapping[str, Any], split: str) -> WorldRecord:
    """A record from its stored form; pictures and text are bytes, as TFDS hands them out."""
    from guardjax.policies.condition import Attributes

    facts = json.loads(stored["attributes"])
    return WorldRecord(
        image=_pixels(stored["image"]),
        attributes=Attributes.of(facts["objects"], catalogue.CATEGORY_OF, facts["context"]),
        scene_id=_text(stored["scene_id"]),
        pair_id=_text(stored["pair_id"]),
        role=_text(stored["role"]),
        edit_kind=_text(stored["edit_kind"]),
        caption=_text(stored["caption"]),
        questions=tuple((asked, answer) for asked, answer in json.loads(stored["questions"])),
        mask=_pixels(stored["mask"]) > 0,
        split=split,
        objects=tuple(facts["objects"]),
        place=facts["context"]["place"],
        light=facts["context"]["light"],
        photograph=_text(stored["photograph"]),
        artist=_text(stored["artist"]),
    )


def _png(pixels: np.ndarray) -> io.BytesIO:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=_COMPRESSION)
    buffer.seek(0)
    return buffer


def _pixels(png: bytes) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(png)))


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
