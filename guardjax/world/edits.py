"""Edited pairs in the manner of SafeEditBench: one object is replaced in place, the rest is kept.

The four kinds are equally frequent, and the pairs that add harm are drawn exactly like those that
remove it, with the members swapped. So "it was edited", "it is the second one" or "it shows a
spoon" do not tell the label: half of all first members and half of all second members are harmful,
and the neutral pairs replace objects by look-alikes as well.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from guardjax.world import catalogue
from guardjax.world.scene import Scene, SceneSpec, dress, scene_rng
from guardjax.world.stamps import stamp

KINDS = ("remove_harm", "add_harm", "neutral_safe", "neutral_harm")

_LOOK_ALIKE_SHARE = 0.6     # how often a harmless stand-in resembles what it stands in for


@dataclasses.dataclass(frozen=True, eq=False)
class EditedPair:
    """Two scenes that differ in the name of one object.

    `mask` is bool [H, W]: the pixels that either of the two objects touches. Outside of it the two
    rendered pictures are equal, byte for byte. `index` is the object's place in `objects`.
    """

    before: Scene
    after: Scene
    kind: str
    index: int
    mask: np.ndarray


def sample_pair(seed: int, spec: SceneSpec = SceneSpec()) -> EditedPair:
    """The pair number `seed` of a split: the same call gives the same pair, always.

    Each run of four seeds (0-3, 4-7, ...) holds each kind once, in a random order. The other
    objects of a pair are harmless, so that the edit decides about harm; in `neutral_harm` they
    may be anything. In `test_object` both members show a held-out object.
    """
    rng = scene_rng(spec.split, seed, "pair")
    order = scene_rng(spec.split, seed // len(KINDS), "kinds").permutation(len(KINDS))
    kind = KINDS[order[seed % len(KINDS)]]
    first, second = _edited_names(kind, spec.split, rng)
    count = 1 + int(rng.choice(len(spec.count_weights), p=_normalised(spec.count_weights)))
    others = _companions(kind, (first, second), spec.split, count - 1, rng)
    index = int(rng.integers(len(others) + 1))
    before = dress(seed, spec, [*others[:index], first, *others[index:]], rng)
    edited = dataclasses.replace(before.objects[index], name=second)
    after = dataclasses.replace(
        before, objects=(*before.objects[:index], edited, *before.objects[index + 1:])
    )
    return EditedPair(before, after, kind, index, edit_mask(before, after))


def edit_mask(before: Scene, after: Scene) -> np.ndarray:
    """Pixels that the objects which differ between two scenes touch: bool [H, W].

    Raises:
        ValueError: the scenes differ in more than the names of their objects.
    """
    blank = {"name": ""}
    strip = [
        dataclasses.replace(scene, objects=tuple(
            dataclasses.replace(placed, **blank) for placed in scene.objects
        ))
        for scene in (before, after)
    ]
    if strip[0] != strip[1]:
        raise ValueError(
            f"scenes {before.seed} and {after.seed} differ in more than object names; "
            "compare the two members of one pair"
        )
    mask = np.zeros((before.image_size, before.image_size), bool)
    for old, new in zip(before.objects, after.objects, strict=True):
        if old.name == new.name:
            continue
        rows, columns = slice(old.y, old.y + old.size), slice(old.x, old.x + old.size)
        for placed in (old, new):
            made = stamp(before.artist, placed.name, placed.size, placed.rotation, placed.flip)
            mask[rows, columns] |= made.touched
    return mask


def _normalised(weights: tuple[float, ...]) -> np.ndarray:
    return np.asarray(weights) / sum(weights)


def _edited_names(kind: str, split: str, rng: np.random.Generator) -> tuple[str, str]:
    """The object before and after the edit."""
    if kind == "add_harm":
        harmless, harmful = reversed(_edited_names("remove_harm", split, rng))
        return harmless, harmful
    harmful = _harmful(split, rng)
    if kind == "remove_harm":
        return harmful, _stand_in(harmful, split, rng)
    if kind == "neutral_harm":
        names = (harmful, _sibling(harmful, split, rng))
    else:
        # Stand-ins for the same harmful object, so that look-alikes are common here too.
        first = _stand_in(harmful, split, rng)
        second = first
        while second == first:
            second = _stand_in(harmful, split, rng)
        names = (first, second)
    return names if rng.random() < 0.5 else (names[1], names[0])


def _drawable(split: str) -> tuple[str, ...]:
    """Objects that an edit of the split may touch: only held-out ones in `test_object`."""
    if split == "test_object":
        return catalogue.HELD_OUT_OBJECTS
    return catalogue.objects_of_split(split)


def _harmful(split: str, rng: np.random.Generator) -> str:
    """A harmful object: a category first, then one of its objects, both evenly."""
    drawable = _drawable(split)
    groups = [
        [name for name in catalogue.CATEGORIES[category] if name in drawable]
        for category in catalogue.HARMFUL
    ]
    groups = [group for group in groups if group]
    group = groups[int(rng.integers(len(groups)))]
    return group[int(rng.integers(len(group)))]


def _stand_in(harmful: str, split: str, rng: np.random.Generator) -> str:
    """A harmless object to put where a harmful one could be: often a look-alike."""
    drawable = [name for name in _drawable(split) if not catalogue.is_harmful(name)]
    similar = [name for name in catalogue.LOOK_ALIKES[harmful] if name in drawable]
    pool = similar if similar and rng.random() < _LOOK_ALIKE_SHARE else drawable
    return pool[int(rng.integers(len(pool)))]


def _sibling(harmful: str, split: str, rng: np.random.Generator) -> str:
    """Another object of the same category."""
    allowed = catalogue.objects_of_split(split)
    pool = [
        name for name in catalogue.CATEGORIES[catalogue.CATEGORY_OF[harmful]]
        if name != harmful and name in allowed
    ]
    return pool[int(rng.integers(len(pool)))]


def _companions(
    kind: str, edited: tuple[str, str], split: str, count: int, rng: np.random.Generator
) -> list[str]:
    """The objects that stay the same."""
    allowed = catalogue.objects_of_split(split)
    harmless = [name for name in allowed if not catalogue.is_harmful(name)]
    pool = list(allowed) if kind == "neutral_harm" else harmless
    names = [pool[int(rng.integers(len(pool)))] for _ in range(count)]
    held_out = catalogue.HELD_OUT_OBJECTS
    if split == "test_object" and not all(name in held_out for name in edited):
        unseen = [name for name in held_out if not catalogue.is_harmful(name)]
        names[:1] = [unseen[int(rng.integers(len(unseen)))]]
    return names
