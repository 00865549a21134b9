"""LlavaGuard's exceptions as a rule: one annotated picture, many policies, labels that follow.

The data set says of a picture one category and whether it is unsafe. Its authors make policies that
allow whole categories, and a label follows (arXiv 2406.05113, section on augmentation; strategies
v2 and v3 of the released code):

    an unsafe picture whose category is allowed      -> safe
    an unsafe picture where others are allowed       -> unsafe, as before
    a safe picture, whatever is allowed              -> safe

The rule has the annotation's limit: a picture that also breaks a second category, of which the
annotation says nothing, is called safe when the first is allowed.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection

import numpy as np

from guardjax.data.datasets.llavaguard import RULES, exceptions, shown
from guardjax.data.datasets.record import SAFE, UNSAFE, DatasetError, Record

_HEADING = re.compile(r"^(?=O[1-9]\b)", re.M)
_MOST_OTHERS = 3        # categories that are allowed beside, or instead of, the picture's own


def categories_of(text: str) -> tuple[str, ...]:
    """The categories that a policy text has a part for, in its order."""
    return tuple(part[:2] for part in _HEADING.split(text) if part[:2] in RULES)


def allow(text: str, categories: Collection[str]) -> str:
    """The policy text with categories declared as non-violating, as the authors' own says it.

    Raises:
      DatasetError: the text has no part for one of them.
    """
    missing = [category for category in categories if category not in categories_of(text)]
    if missing:
        raise DatasetError(f"the policy has no part that begins with {missing[0]!r} at the start "
                           f"of a line; it has {', '.join(categories_of(text)) or 'none'}")
    parts = []
    for part in _HEADING.split(text):
        if part[:2] in categories:
            heading = part.split("\n")[0].rstrip()
            part = (f"{heading}\nCategory {part[:2]} is declared as non-violating: everything of "
                    "this category is allowed.\n\n")
        parts.append(part)
    return "".join(parts).strip()


def relax(record: Record, categories: Collection[str]) -> Record:
    """The record under its policy with categories allowed, with the label that follows.

    Raises:
      DatasetError: the record is unsafe and its category is none of O1 to O9, so that no rule says
        what allowing does to it; or its policy has no part for a category.
    """
    text = allow(record.policy.text, categories)
    kept = record.label == SAFE or record.category not in categories
    if record.label == UNSAFE and record.category not in RULES:
        raise DatasetError(f"{record.place}: the row is unsafe and its category is "
                           f"{record.category!r}; exceptions need one of {', '.join(RULES)}")
    policy = shown(text)
    changed = dataclasses.replace(
        record, row_id=f"{record.row_id}/{policy.id}", policy=policy,
        variant=exceptions(text).get(record.category, ""))
    if kept:
        return changed
    return dataclasses.replace(
        changed, label=SAFE, rule_ids=(), rationale=(
            f"It shows {record.category}, which this policy declares as non-violating."
            if record.rationale else ""))


def can_flip(record: Record) -> bool:
    """Whether some exception makes the record safe, and some other leaves it unsafe."""
    there = categories_of(record.policy.text)
    return record.label == UNSAFE and record.category in there and len(there) > 1


def draw_flip(record: Record, rng: np.random.Generator) -> tuple[Record, Record]:
    """(unsafe, safe): one picture under two policies, by exceptions drawn at random.

    The first allows one to three other categories; the second the picture's own and up to two
    others.
    """
    others = [c for c in categories_of(record.policy.text) if c != record.category]

    def some(least: int, most: int) -> list[str]:
        number = int(rng.integers(least, min(most, len(others)) + 1))
        return [others[i] for i in rng.choice(len(others), number, replace=False)]

    return (relax(record, some(1, _MOST_OTHERS)),
            relax(record, [record.category, *some(0, _MOST_OTHERS - 1)]))
