"""What the policy world holds, as data: objects, contexts, look-alikes and held-out objects.

Every name is one lowercase word, so that a small tokenizer can give each of them one token. A name
means the drawing of that thing and nothing else; no picture in this world is harmful in itself.
"""

from __future__ import annotations

import dataclasses
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from guardjax.policies.generator import Vocabulary

SPLITS = ("train", "dev", "test", "test_background", "test_artist", "test_object")


@dataclasses.dataclass(frozen=True)
class Thing:
    """One object. `codepoint` is its Unicode character, or None where we drew it ourselves."""

    name: str
    category: str
    codepoint: str | None


_HARMFUL = {
    "weapons": {
        "knife": "\U0001f52a", "dagger": "\U0001f5e1", "sword": "\u2694", "bow": "\U0001f3f9",
        "axe": "\U0001fa93",
    },
    "fire": {
        "bomb": "\U0001f4a3", "firecracker": "\U0001f9e8", "flame": "\U0001f525",
        "explosion": "\U0001f4a5",
    },
    "alcohol": {
        "beer": "\U0001f37a", "wine": "\U0001f377", "cocktail": "\U0001f378",
        "champagne": "\U0001f37e", "whisky": "\U0001f943", "sake": "\U0001f376",
    },
    "tobacco": {"cigarette": "\U0001f6ac", "cigar": None, "pipe": None},
    "drugs": {"pill": "\U0001f48a", "syringe": "\U0001f489", "cannabis": None},
    "gambling": {
        "slot": "\U0001f3b0", "die": "\U0001f3b2", "joker": "\U0001f0cf",
        "hanafuda": "\U0001f3b4",
    },
    "gore": {
        "skull": "\U0001f480", "blood": "\U0001fa78", "coffin": "\u26b0", "bone": "\U0001f9b4",
    },
    "insults": {"finger": "\U0001f595", "cursing": "\U0001f92c", "devil": "\U0001f47f"},
    # Hate symbols are stood in for by emblems that mean nothing outside this world.
    "emblems": {"vask": None, "torl": None, "nemb": None},
}

_HARMLESS = {
    "animals": {
        "dog": "\U0001f436", "fox": "\U0001f98a", "rabbit": "\U0001f430", "frog": "\U0001f438",
        "fish": "\U0001f41f", "snail": "\U0001f40c", "penguin": "\U0001f427",
        "turtle": "\U0001f422", "butterfly": "\U0001f98b", "owl": "\U0001f989",
    },
    "food": {
        "apple": "\U0001f34e", "banana": "\U0001f34c", "strawberry": "\U0001f353",
        "bread": "\U0001f35e", "cheese": "\U0001f9c0", "carrot": "\U0001f955",
        "pizza": "\U0001f355", "egg": "\U0001f95a", "grapes": "\U0001f347", "corn": "\U0001f33d",
    },
    "sweets": {
        "candy": "\U0001f36c", "lollipop": "\U0001f36d", "cake": "\U0001f370",
        "donut": "\U0001f369", "cookie": "\U0001f36a", "icecream": "\U0001f366",
    },
    "drinks": {"tea": "\U0001f375", "milk": "\U0001f95b", "juice": "\U0001f9c3"},
    "toys": {
        "balloon": "\U0001f388", "puzzle": "\U0001f9e9", "teddy": "\U0001f9f8",
        "kite": "\U0001fa81", "robot": "\U0001f916",
    },
    "music": {
        "guitar": "\U0001f3b8", "drum": "\U0001f941", "trumpet": "\U0001f3ba",
        "violin": "\U0001f3bb", "radio": "\U0001f4fb",
    },
    "tools": {
        "spoon": "\U0001f944", "pen": "\U0001f58a", "brush": "\U0001f58c",
        "umbrella": "\U0001f302", "scissors": "\u2702", "hammer": "\U0001f528",
        "key": "\U0001f511", "torch": "\U0001f526", "magnet": "\U0001f9f2", "bulb": "\U0001f4a1",
    },
    "clothes": {
        "hat": "\U0001f3a9", "shoe": "\U0001f45f", "shirt": "\U0001f455",
        "glasses": "\U0001f453", "sock": "\U0001f9e6", "crown": "\U0001f451",
    },
    "vehicles": {
        "car": "\U0001f697", "bicycle": "\U0001f6b2", "bus": "\U0001f68c", "boat": "\u26f5",
        "plane": "\u2708", "tractor": "\U0001f69c",
    },
    "nature": {
        "sunflower": "\U0001f33b", "tree": "\U0001f333", "cactus": "\U0001f335",
        "mushroom": "\U0001f344", "leaf": "\U0001f341", "cloud": "\u2601",
    },
    "sports": {
        "football": "\u26bd", "basketball": "\U0001f3c0", "tennis": "\U0001f3be",
        "trophy": "\U0001f3c6",
    },
}

HARMFUL: tuple[str, ...] = tuple(_HARMFUL)
HARMLESS: tuple[str, ...] = tuple(_HARMLESS)

THINGS: MappingProxyType[str, Thing] = MappingProxyType({
    name: Thing(name, category, codepoint)
    for group in (_HARMFUL, _HARMLESS)
    for category, things in group.items()
    for name, codepoint in things.items()
})

CATEGORIES: MappingProxyType[str, tuple[str, ...]] = MappingProxyType({
    category: tuple(things) for category, things in (_HARMFUL | _HARMLESS).items()
})

CATEGORY_OF: MappingProxyType[str, str] = MappingProxyType({
    name: thing.category for name, thing in THINGS.items()
})

CONTEXTS: MappingProxyType[str, tuple[str, ...]] = MappingProxyType({
    "place": ("city", "garden", "table", "stone", "space", "home"),
    "light": ("bright", "dark"),
})

# Harmful object -> harmless ones of a similar outline, colour or use: the edits that are easy to
# miss.
LOOK_ALIKES: MappingProxyType[str, tuple[str, ...]] = MappingProxyType({
    "knife": ("spoon", "brush"), "dagger": ("umbrella", "pen"), "sword": ("scissors",),
    "bow": ("kite", "banana"), "axe": ("hammer",),
    "bomb": ("balloon", "bulb"), "firecracker": ("carrot", "torch"), "flame": ("leaf", "carrot"),
    "explosion": ("sunflower",),
    "beer": ("tea", "drum"), "wine": ("milk", "icecream"), "cocktail": ("juice", "icecream"),
    "champagne": ("milk", "carrot"), "whisky": ("milk", "tea"), "sake": ("tea", "egg"),
    "cigarette": ("pen", "brush"), "cigar": ("carrot", "pen"), "pipe": ("spoon", "trumpet"),
    "pill": ("candy", "egg"), "syringe": ("brush", "pen"), "cannabis": ("leaf", "tree"),
    "slot": ("radio",), "die": ("puzzle", "cheese"), "joker": ("juice", "bread"),
    "hanafuda": ("radio", "bread"),
    "skull": ("egg", "football"), "blood": ("strawberry", "apple"), "coffin": ("guitar", "bread"),
    "bone": ("sock", "spoon"),
    "finger": ("trophy", "icecream"), "cursing": ("basketball", "apple"),
    "devil": ("fox", "grapes"),
    "vask": ("magnet", "football"), "torl": ("donut", "cookie"), "nemb": ("puzzle", "lollipop"),
})

# Never in a train, dev, test, test_background or test_artist scene: only in test_object.
HELD_OUT_OBJECTS: tuple[str, ...] = (
    "axe", "firecracker", "sake", "hanafuda",
    "owl", "cheese", "cookie", "trumpet", "hammer", "crown", "tractor", "cactus",
)


def is_harmful(name: str) -> bool:
    """Whether an object belongs to one of the harm categories."""
    return CATEGORY_OF[name] in HARMFUL


def objects_of_split(split: str) -> tuple[str, ...]:
    """Names that a scene of the split may show; everything for `test_object`.

    Raises:
        ValueError: the split does not exist.
    """
    if split not in SPLITS:
        raise ValueError(f"split {split!r} does not exist; choose one of {', '.join(SPLITS)}")
    if split == "test_object":
        return tuple(THINGS)
    return tuple(name for name in THINGS if name not in HELD_OUT_OBJECTS)


def vocabulary(*, with_held_out: bool = False) -> Vocabulary:
    """Names for `policies.generator`: categories, which of them are harmful, and contexts.

    Without `with_held_out`, policies speak only of objects that training scenes can show.
    """
    from guardjax.policies.generator import Vocabulary

    hidden = () if with_held_out else HELD_OUT_OBJECTS
    categories = {
        category: tuple(name for name in names if name not in hidden)
        for category, names in CATEGORIES.items()
    }
    return Vocabulary(categories=categories, harmful=HARMFUL, contexts=dict(CONTEXTS))
