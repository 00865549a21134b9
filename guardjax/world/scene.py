"""A scene: objects over a softened photograph, fully determined by a split and a seed.

The photograph and its distractors are degraded first (blur, noise, JPEG); the objects are pasted
afterwards. Two scenes that differ in one object are therefore byte-equal everywhere else.
"""

from __future__ import annotations

import dataclasses
import functools
import io
import zlib
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from guardjax.world import catalogue
from guardjax.world.distractors import SHAPES, distractor
from guardjax.world.photographs import BLURS, ZOOMS, backdrop, photographs_of_split
from guardjax.world.sprites import ARTISTS
from guardjax.world.stamps import stamp

if TYPE_CHECKING:
    from guardjax.policies.condition import Attributes

GRID = 2                        # objects lie in the cells of a GRID x GRID grid, one a cell
MAX_OBJECTS = GRID * GRID
_NOISE = 256                    # side of the noise field that scenes cut their noise from


@dataclasses.dataclass(frozen=True)
class SceneSpec:
    """What scenes look like. Sizes are in pixels; `count_weights` are for 1, 2, 3, 4 objects.

    `artist` is that of the split unless it is given.

    Raises:
        ValueError: a value out of range; the message names it, its limit and the fix.
    """

    split: str = "train"
    image_size: int = 64
    sprite_sizes: tuple[int, ...] = (24, 26, 28, 30)
    rotations: tuple[int, ...] = (-15, -10, -5, 0, 5, 10, 15)
    count_weights: tuple[float, ...] = (0.2, 0.3, 0.3, 0.2)
    harm_share: float = 0.5         # share of scenes with at least one harmful object
    same_category: float = 0.15     # chance that a further object shares a category, for counts
    dark_share: float = 0.4
    artist: str | None = None

    def __post_init__(self):
        cell = self.image_size // GRID
        if self.split not in catalogue.SPLITS:
            raise ValueError(
                f"split {self.split!r} does not exist; choose one of {', '.join(catalogue.SPLITS)}"
            )
        if self.artist is not None and self.artist not in ARTISTS:
            raise ValueError(f"artist {self.artist!r} is unknown; choose one of {ARTISTS}")
        if not self.sprite_sizes or not all(8 <= size <= cell for size in self.sprite_sizes):
            raise ValueError(
                f"sprite sizes {self.sprite_sizes} do not fit: each must be 8 to {cell} pixels, "
                f"half of image_size={self.image_size}"
            )
        if not 1 <= len(self.count_weights) <= MAX_OBJECTS or min(self.count_weights) < 0 \
                or not sum(self.count_weights) > 0:
            raise ValueError(
                f"count_weights {self.count_weights} must be 1 to {MAX_OBJECTS} weights, none "
                "negative, not all zero"
            )
        for name in ("harm_share", "same_category", "dark_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; give a share from 0 to 1")

    @property
    def drawn_by(self) -> str:
        """The artist of these scenes: the given one, or that of the split."""
        return self.artist or ("noto" if self.split == "test_artist" else "openmoji")


@dataclasses.dataclass(frozen=True)
class Placed:
    """An object in a scene. `x`, `y` are the left top corner of its box of `size` pixels."""

    name: str
    x: int
    y: int
    size: int
    rotation: int = 0       # degrees, counter-clockwise
    flip: bool = False
    gain: float = 1.0       # brightness factor of this object


@dataclasses.dataclass(frozen=True)
class Crop:
    """Which part of a photograph is behind the objects; `zoom` indexes `photographs.ZOOMS`."""

    zoom: int
    x: int
    y: int
    flip: bool


@dataclasses.dataclass(frozen=True)
class Quality:
    """How the photograph is degraded before objects are pasted."""

    blur: int               # indexes photographs.BLURS
    contrast: float         # 1 keeps the photograph, 0 is flat colour
    noise: float            # standard deviation, grey levels
    jpeg: int | None        # quality of a 4:4:4 round trip, or None


@dataclasses.dataclass(frozen=True)
class Distractor:
    """A faint plain shape behind the objects that no policy speaks of."""

    shape: int
    x: int
    y: int
    colour: tuple[int, int, int]
    opacity: float


@dataclasses.dataclass(frozen=True)
class Scene:
    """Everything that decides a picture and its ground truth. Objects are in reading order."""

    seed: int
    split: str
    image_size: int
    objects: tuple[Placed, ...]
    place: str
    light: str
    photograph: str
    crop: Crop
    exposure: float         # brightness factor of the photograph
    quality: Quality
    distractors: tuple[Distractor, ...]
    artist: str

    @property
    def names(self) -> tuple[str, ...]:
        """Object names in reading order."""
        return tuple(placed.name for placed in self.objects)

    def attributes(self) -> Attributes:
        """What a policy can ask about: objects, their categories, place and light."""
        from guardjax.policies.condition import Attributes

        return Attributes.of(
            self.names, catalogue.CATEGORY_OF, {"place": self.place, "light": self.light}
        )


def scene_rng(split: str, seed: int, purpose: str = "scene") -> np.random.Generator:
    """The random stream of one scene; streams of different purposes never touch each other."""
    if seed < 0:
        raise ValueError(f"seed {seed} is negative; give 0 or more")
    return np.random.default_rng([zlib.crc32(f"{purpose}/{split}".encode()), seed])


def sample_scene(seed: int, spec: SceneSpec = SceneSpec()) -> Scene:
    """The scene number `seed` of a split: the same call gives the same scene, always."""
    rng = scene_rng(spec.split, seed)
    count = 1 + _weighted(rng, spec.count_weights)
    return dress(seed, spec, sample_names(rng, spec, count), rng)


def sample_names(rng: np.random.Generator, spec: SceneSpec, count: int) -> list[str]:
    """Names of `count` objects, in random order; `harm_share` of the calls hold a harmful one.

    Categories of harm are drawn evenly and then an object of the category; harmless objects are
    drawn evenly. A scene of `test_object` holds at least one held-out object.
    """
    pools = _pools(spec.split)
    harmful = rng.random() < spec.harm_share
    names: list[str] = []
    if spec.split == "test_object":
        names.append(_choice(rng, pools.unseen_harmful if harmful else pools.unseen_harmless))
    elif harmful:
        names.append(_choice(rng, _choice(rng, pools.harmful)))
    while len(names) < count:
        luck = rng.random()
        category = catalogue.CATEGORY_OF[_choice(rng, names)] if names else ""
        if names and luck < spec.same_category:
            names.append(_choice(rng, pools.by_category[category]))
        elif harmful and luck > 0.8:
            names.append(_choice(rng, _choice(rng, pools.harmful)))
        else:
            names.append(_choice(rng, pools.harmless))
    rng.shuffle(names)
    return names


def dress(seed: int, spec: SceneSpec, names: list[str], rng: np.random.Generator) -> Scene:
    """A scene with the given objects; place, light, layout and quality come from `rng`."""
    places = _places(spec.split)
    place, photographs = _choice(rng, places)
    photograph = _choice(rng, photographs)
    dark = rng.random() < spec.dark_share
    quality = Quality(
        blur=int(rng.integers(len(BLURS))),
        contrast=round(float(rng.uniform(0.3, 0.85)), 3),
        noise=round(float(max(0.0, rng.uniform(-4, 8))), 2),
        jpeg=int(rng.integers(35, 95)) if rng.random() < 0.4 else None,
    )
    zoom = int(rng.integers(len(ZOOMS)))
    height, width, _ = backdrop(photograph, spec.image_size, zoom, quality.blur).shape
    crop = Crop(
        zoom=zoom,
        x=int(rng.integers(width - spec.image_size + 1)),
        y=int(rng.integers(height - spec.image_size + 1)),
        flip=bool(rng.random() < 0.5),
    )
    return Scene(
        seed=seed,
        split=spec.split,
        image_size=spec.image_size,
        objects=_lay_out(names, spec, dark, rng),
        place=place,
        light="dark" if dark else "bright",
        photograph=photograph,
        crop=crop,
        exposure=round(float(rng.uniform(0.34, 0.5) if dark else rng.uniform(0.9, 1.15)), 3),
        quality=quality,
        distractors=_distract(spec, rng),
        artist=spec.drawn_by,
    )


def render(scene: Scene) -> np.ndarray:
    """The picture of a scene: uint8 [image_size, image_size, 3].

    Raises:
        ArtistUnavailable: the scene's artist is not installed.
    """
    image = _background(scene)
    for placed in scene.objects:
        made = stamp(scene.artist, placed.name, placed.size, placed.rotation, placed.flip)
        rows = slice(placed.y, placed.y + placed.size)
        columns = slice(placed.x, placed.x + placed.size)
        pasted = image[rows, columns] * made.through + made.colour * np.float32(placed.gain)
        # Rounding, not truncation: a transparent pixel must keep its byte exactly.
        image[rows, columns] = np.minimum(pasted + 0.5, 255)
    return image


def silhouettes(scene: Scene) -> np.ndarray:
    """Where each object is more than half opaque: bool [objects, image_size, image_size]."""
    masks = np.zeros((len(scene.objects), scene.image_size, scene.image_size), bool)
    for mask, placed in zip(masks, scene.objects, strict=True):
        made = stamp(scene.artist, placed.name, placed.size, placed.rotation, placed.flip)
        mask[placed.y:placed.y + placed.size, placed.x:placed.x + placed.size] = made.solid
    return masks


def cover(scene: Scene, unit: int, share: float = 0.3) -> np.ndarray:
    """Which object each unit of the picture shows: a dense target for learning to see.

    A `unit` x `unit` pixel square names the object that covers most of it, if that is at least
    `share` of the square; the square that shows most of an object names it in any case, so that
    thin objects are never missing. Returns str [image_size / unit, image_size / unit], '' for
    background.

    Raises:
        ValueError: `unit` does not divide the image size.
    """
    if unit < 1 or scene.image_size % unit:
        raise ValueError(f"unit {unit} does not divide the image size {scene.image_size}")
    side = scene.image_size // unit
    names = np.full((side, side), "", dtype=_NAME_TYPE)
    counts = silhouettes(scene).reshape(-1, side, unit, side, unit).sum((2, 4), dtype=np.int32)
    best, most = counts.argmax(0), counts.max(0)
    for index, placed in enumerate(scene.objects):
        shown = (best == index) & (most >= share * unit * unit)
        if not shown.any():
            shown.flat[counts[index].argmax()] = True
        names[shown] = placed.name
    return names


_NAME_TYPE = f"<U{max(map(len, catalogue.THINGS))}"


@dataclasses.dataclass(frozen=True)
class _Pools:
    """Names that a split draws from."""

    harmful: tuple[tuple[str, ...], ...]            # one tuple a category
    harmless: tuple[str, ...]
    unseen_harmful: tuple[str, ...]
    unseen_harmless: tuple[str, ...]
    by_category: dict[str, tuple[str, ...]]


@functools.cache
def _pools(split: str) -> _Pools:
    allowed = set(catalogue.objects_of_split(split))
    by_category = {
        category: tuple(name for name in names if name in allowed)
        for category, names in catalogue.CATEGORIES.items()
    }
    unseen = catalogue.HELD_OUT_OBJECTS
    return _Pools(
        harmful=tuple(by_category[category] for category in catalogue.HARMFUL),
        harmless=tuple(n for c in catalogue.HARMLESS for n in by_category[c]),
        unseen_harmful=tuple(name for name in unseen if catalogue.is_harmful(name)),
        unseen_harmless=tuple(name for name in unseen if not catalogue.is_harmful(name)),
        by_category=by_category,
    )


@functools.cache
def _places(split: str) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """(place, photographs) pairs of a split."""
    return tuple(photographs_of_split(split).items())


def _choice(rng: np.random.Generator, items):
    return items[int(rng.integers(len(items)))]


def _weighted(rng: np.random.Generator, weights: tuple[float, ...]) -> int:
    cumulative = np.cumsum(weights)
    return int(np.searchsorted(cumulative, rng.random() * cumulative[-1], side="right"))


def _lay_out(
    names: list[str], spec: SceneSpec, dark: bool, rng: np.random.Generator
) -> tuple[Placed, ...]:
    """Objects in random cells of the grid, in reading order, with jitter inside the cell."""
    cell = spec.image_size // GRID
    cells = sorted(rng.permutation(MAX_OBJECTS)[:len(names)].tolist())
    placed = []
    for name, index in zip(names, cells, strict=True):
        row, column = divmod(index, GRID)
        size = _choice(rng, spec.sprite_sizes)
        slack = cell - size + 1
        placed.append(Placed(
            name=name,
            x=column * cell + int(rng.integers(slack)),
            y=row * cell + int(rng.integers(slack)),
            size=size,
            rotation=_choice(rng, spec.rotations),
            flip=bool(rng.random() < 0.5),
            gain=round(float(rng.uniform(0.55, 0.7) if dark else rng.uniform(0.88, 1.08)), 3),
        ))
    return tuple(placed)


def _distract(spec: SceneSpec, rng: np.random.Generator) -> tuple[Distractor, ...]:
    """None to three faint shapes anywhere."""
    return tuple(
        Distractor(
            shape=int(rng.integers(len(SHAPES))),
            x=int(rng.integers(spec.image_size)),
            y=int(rng.integers(spec.image_size)),
            colour=tuple(rng.integers(0, 256, 3).tolist()),
            opacity=round(float(rng.uniform(0.15, 0.5)), 2),
        )
        for _ in range(int(rng.integers(4)))
    )


@functools.cache
def _noise_field() -> np.ndarray:
    """One fixed field of unit noise, float32 [_NOISE, _NOISE, 3]; scenes cut windows from it."""
    return np.random.default_rng(20240607).standard_normal((_NOISE, _NOISE, 3), np.float32)


def _background(scene: Scene) -> np.ndarray:
    """Photograph and distractors, degraded: uint8 [image_size, image_size, 3], writable."""
    size, crop, quality = scene.image_size, scene.crop, scene.quality
    window = backdrop(scene.photograph, size, crop.zoom, quality.blur)
    window = window[crop.y:crop.y + size, crop.x:crop.x + size]
    if crop.flip:
        window = window[:, ::-1]
    image = window.astype(np.float32)
    # Towards a light version of its own colour: dark outlines stay visible on it.
    flat = 0.55 * image.mean((0, 1)) + 70
    image = flat * (1 - quality.contrast) + image * quality.contrast
    for shape in scene.distractors:
        _paste_distractor(image, shape, size)
    image *= np.float32(scene.exposure)
    if quality.noise:
        top, left = scene.seed * 37 % (_NOISE - size), scene.seed * 101 % (_NOISE - size)
        image += np.float32(quality.noise) * _noise_field()[top:top + size, left:left + size]
    np.clip(image, 0, 255, out=image)
    degraded = image.astype(np.uint8)
    if quality.jpeg is not None:
        buffer = io.BytesIO()
        Image.fromarray(degraded).save(buffer, "JPEG", quality=quality.jpeg, subsampling=0)
        degraded = np.array(Image.open(buffer))
    return degraded


def _paste_distractor(image: np.ndarray, shape: Distractor, size: int) -> None:
    alpha = distractor(shape.shape, size)[..., None]
    half = alpha.shape[0] // 2
    top, left = max(0, shape.y - half), max(0, shape.x - half)
    bottom, right = min(size, shape.y + half), min(size, shape.x + half)
    part = alpha[top - shape.y + half:bottom - shape.y + half,
                 left - shape.x + half:right - shape.x + half] * np.float32(shape.opacity)
    target = image[top:bottom, left:right]
    target += part * (np.array(shape.colour, np.float32) - target)
