"""Many short questions about one scene in one text: sight practised as densely as reading.

One answer teaches a bit for a whole sequence. A quiz has a bit for every few tokens, as the texts
of kind "study" have for rules (experiments/safeguard_vl).
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from guardjax.world import catalogue
from guardjax.world.builder import WorldRecord
from guardjax.world.language import article

QUIZ_QUESTION = "one by one?"
_QUESTIONS = 8
# What a line asks about, and how often: names and kinds are what rules speak of.
_TOPICS = {
    "object": 0.3, "kind": 0.3, "number": 0.1, "kind of": 0.1, "place": 0.1, "light": 0.1}


def quiz_text(record: WorldRecord, rng: np.random.Generator) -> str:
    """Questions in the world's own words, answered truly: " any tools? no. where is it? city."."""
    topics = rng.choice(list(_TOPICS), size=_QUESTIONS, p=list(_TOPICS.values()))
    return "".join(f" {asked} {answer}." for asked, answer in (
        _line(topic, record, rng) for topic in topics))


def _line(topic: str, record: WorldRecord, rng: np.random.Generator) -> tuple[str, str]:
    shown = set(record.objects)
    kinds = {catalogue.CATEGORY_OF[name] for name in shown}
    present = rng.random() < 0.5
    if topic == "object":
        names = catalogue.objects_of_split(record.split)
        name = _choose(shown if present else set(names) - shown, rng)
        return f"is there {article(name)} {name}?", "yes" if present else "no"
    if topic == "kind":
        kind = _choose(kinds if present else set(catalogue.CATEGORIES) - kinds, rng)
        return f"any {kind}?", "yes" if present else "no"
    if topic == "kind of":
        name = _choose(shown, rng)
        return f"what kind is the {name}?", catalogue.CATEGORY_OF[name]
    return {
        "number": ("how many objects?", str(len(record.objects))),
        "place": ("where is it?", record.place),
        "light": ("bright or dark?", record.light),
    }[topic]


def _choose(items: Collection[str], rng: np.random.Generator) -> str:
    ordered = sorted(items)
    return ordered[int(rng.integers(len(ordered)))]
