"""Photographs behind the objects: those inside the scikit-image and scikit-learn wheels.

Nothing is downloaded. Each photograph has a place; some are held out for `test_background`. Crop
regions leave out things that the catalogue has a name for, so that attributes stay exact.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
from pathlib import Path
from types import MappingProxyType

import numpy as np
from PIL import Image, ImageFilter

ZOOMS = (1.15, 1.6, 2.3)        # shorter side of the scaled region, in image sizes
BLURS = (0.0, 0.8, 1.6)         # Gaussian radius in pixels of a 64-pixel image

_CC0 = "CC0 1.0"
_CC_BY = "CC BY 2.0"
_PUBLIC = "public domain"


@dataclasses.dataclass(frozen=True)
class Photograph:
    """A bundled photograph and where it may be cropped.

    `region` is (left, top, right, bottom) as fractions of the picture. `tint` gives a grey picture
    colour, as (dark, light) RGB ends of a ramp; grey alone would give the place away.
    """

    name: str
    place: str
    package: str                                    # "skimage" or "sklearn"
    file: str
    held_out: bool
    licence: str
    credit: str
    region: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0)
    tint: tuple[tuple[int, int, int], tuple[int, int, int]] | None = None


_ALL = (
    Photograph("china", "city", "sklearn", "china.jpg", False, _CC_BY,
               "danielbuechele, flickr.com/photos/danielbuechele/6061409035"),
    # The skyline on the right only: the rest is a person and grass.
    Photograph("camera", "city", "skimage", "camera.png", True, _CC0, "Lav Varshney",
               region=(0.65, 0.18, 1.0, 0.5), tint=((18, 22, 34), (232, 238, 246))),
    Photograph("flower", "garden", "sklearn", "flower.jpg", False, _CC_BY,
               "vultilion, flickr.com/photos/vultilion/6056698931"),
    Photograph("grass", "garden", "skimage", "grass.png", False, _CC0,
               "linolafett, deviantart.com/art/Grass-01-434853879",
               tint=((14, 40, 8), (196, 224, 120))),
    # Only the wood and the rim of the saucer: a spoon lies on its right-hand side.
    Photograph("coffee", "table", "skimage", "coffee.png", False, _CC0, "Rachel Michetti",
               region=(0.0, 0.0, 0.56, 1.0)),
    Photograph("coins", "table", "skimage", "coins.png", True,
               "no known copyright restrictions", "Brooklyn Museum Collection",
               tint=((44, 26, 14), (244, 220, 176))),
    Photograph("brick", "stone", "skimage", "brick.png", False, _CC0,
               "CC0Textures, Bricks25", tint=((58, 22, 16), (232, 184, 164))),
    Photograph("gravel", "stone", "skimage", "gravel.png", True, _CC0,
               "CC0Textures, Gravel04", tint=((44, 36, 30), (232, 222, 208))),
    Photograph("hubble", "space", "skimage", "hubble_deep_field.jpg", False, _PUBLIC, "NASA, ESA"),
    Photograph("rocket", "space", "skimage", "rocket.jpg", False, _PUBLIC, "SpaceX"),
    Photograph("moon", "space", "skimage", "moon.png", True, _PUBLIC, "NASA"),
    Photograph("chelsea", "home", "skimage", "chelsea.png", False, _CC0, "Stefan van der Walt"),
    Photograph("motorcycle", "home", "skimage", "motorcycle_left.png", False, _CC0,
               "Middlebury 2014 stereo benchmark (N. Nesic, P. Westling, X. Wang, "
               "Y. Kitajima, G. Krathwohl, D. Scharstein)"),
)

PHOTOGRAPHS: MappingProxyType[str, Photograph] = MappingProxyType({p.name: p for p in _ALL})


def photographs_of_split(split: str) -> dict[str, tuple[str, ...]]:
    """Place -> names of the photographs that scenes of the split may use."""
    wanted = split == "test_background"
    places: dict[str, tuple[str, ...]] = {}
    for photograph in _ALL:
        if photograph.held_out == wanted:
            places[photograph.place] = (*places.get(photograph.place, ()), photograph.name)
    return places


@functools.lru_cache(maxsize=64)
def _decode(name: str) -> Image.Image:
    """The crop region of a photograph in RGB, tinted if it was grey."""
    photograph = PHOTOGRAPHS[name]
    folder = {"skimage": "data", "sklearn": "datasets/images"}[photograph.package]
    # Found without importing the package, which would take a second.
    spec = importlib.util.find_spec(photograph.package)
    file = Path(spec.origin).parent / folder / photograph.file if spec else None
    if file is None or not file.is_file():
        raise FileNotFoundError(
            f"{photograph.file} is not inside an installed {photograph.package} package; "
            "reinstall it with: pip install 'guardjax[world]'"
        )
    picture = Image.open(file).convert("L" if photograph.tint else "RGB")
    left, top, right, bottom = photograph.region
    width, height = picture.size
    picture = picture.crop((
        round(left * width), round(top * height), round(right * width), round(bottom * height),
    ))
    if photograph.tint is None:
        return picture
    dark, light = (np.array(end, np.float32) for end in photograph.tint)
    grey = np.asarray(picture, np.float32)[..., None] / 255
    return Image.fromarray((dark + (light - dark) * grey).astype(np.uint8))


@functools.lru_cache(maxsize=512)
def backdrop(name: str, size: int, zoom: int, blur: int) -> np.ndarray:
    """A photograph scaled and blurred, from which a scene takes its crop.

    Returns uint8 [height, width, 3], both sides at least `size` pixels; `zoom` and `blur` index
    `ZOOMS` and `BLURS`. The array is cached and read-only.
    """
    picture = _decode(name)
    scale = size * ZOOMS[zoom] / min(picture.size)
    sides = tuple(max(size, round(side * scale)) for side in picture.size)
    picture = picture.resize(sides, Image.Resampling.LANCZOS)
    if BLURS[blur]:
        picture = picture.filter(ImageFilter.GaussianBlur(BLURS[blur] * size / 64))
    pixels = np.asarray(picture)
    pixels.setflags(write=False)
    return pixels
