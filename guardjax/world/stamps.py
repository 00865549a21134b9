"""Sprites ready to paste: scaled, turned and premultiplied, each made once and kept in memory."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
from PIL import Image

from guardjax.world.sprites import load_sprites

_SOURCE = 96    # pixels of the sprite that stamps are scaled from


@dataclasses.dataclass(frozen=True, eq=False)
class Stamp:
    """One object at one size and rotation; arrays are shared and read-only."""

    colour: np.ndarray    # [S, S, 3] float32, 0-255, premultiplied by alpha
    through: np.ndarray   # [S, S, 1] float32, 1 - alpha: how much of the background shows through
    solid: np.ndarray     # [S, S] bool, alpha above one half
    touched: np.ndarray   # [S, S] bool, alpha above zero: pixels that the paste can change


@functools.cache
def _source(artist: str, name: str) -> Image.Image:
    return Image.fromarray(load_sprites(artist, _SOURCE)[name]).convert("RGBa")


@functools.lru_cache(maxsize=32768)
def stamp(artist: str, name: str, size: int, rotation: int, flip: bool) -> Stamp:
    """An object turned by `rotation` degrees (counter-clockwise) to fill a box of `size` pixels.

    The turned drawing is scaled to the box, so that no rotation ever reaches outside it.
    """
    picture = _source(artist, name)
    if flip:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if rotation:
        picture = picture.rotate(rotation, Image.Resampling.BICUBIC, expand=True)
    picture = picture.crop(picture.getchannel("a").point(lambda a: 255 * (a > 24)).getbbox())
    scale = size / max(picture.size)
    width, height = (max(1, round(side * scale)) for side in picture.size)
    picture = picture.resize((width, height), Image.Resampling.LANCZOS)
    canvas = np.zeros((size, size, 4), np.float32)
    top, left = (size - height) // 2, (size - width) // 2
    canvas[top:top + height, left:left + width] = np.asarray(picture)
    alpha = canvas[..., 3:]
    # Lanczos overshoot may leave colour above alpha, which would brighten edges.
    made = Stamp(
        colour=np.minimum(canvas[..., :3], alpha),
        through=1 - alpha / 255,
        solid=alpha[..., 0] > 127,
        touched=alpha[..., 0] > 0,
    )
    for field in dataclasses.fields(made):
        getattr(made, field.name).setflags(write=False)
    return made
