"""Small worlds for reasoning about rules: every scene that a few rules can tell apart.

Two rules are compared by trying them on all of these scenes, which needs no logic of its own and
treats counts, contexts and allow-lists alike.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence

from guardjax.policies.condition import Attributes, Condition, Has

_OTHER = "other"


def distinct_scenes(
    conditions: Sequence[Condition], category_of: Mapping[str, str] | None = None,
    limit: int = 20_000,
) -> Iterator[Attributes] | None:
    """Scenes that cover every case of the conditions, or None if there are more than `limit`.

    With `category_of` (object to category) an object counts towards its category too. Without it
    every name is taken for an object of its own.
    """
    homes = dict(category_of or {})
    most: dict[str, int] = {}
    for name in sorted(frozenset().union(*(c.names() for c in conditions))):
        most[name] = max((_largest(c, name) for c in conditions), default=1)
    categories = set(homes.values())
    # A category shows itself through a member that no rule names.
    members = {f"{name}-member" if name in categories else name: number
               for name, number in most.items()}
    for name in most:
        if name in categories:
            homes[f"{name}-member"] = name
        else:
            homes.setdefault(name, f"{name}-category")
    members[f"{_OTHER}-object"] = 1
    homes[f"{_OTHER}-object"] = f"{_OTHER}-category"

    values: dict[str, set[str]] = {}
    for name, value in frozenset().union(*(c.contexts() for c in conditions)):
        values.setdefault(name, {f"{_OTHER}-value"}).add(value)
    counts = [range(number + 1) for number in members.values()]
    settings = [sorted(values[name]) for name in sorted(values)]
    total = 1
    for choice in (*counts, *settings):
        total *= len(choice)
    if total > limit:
        return None

    def scenes() -> Iterator[Attributes]:
        for numbers in itertools.product(*counts):
            objects = [n for n, k in zip(members, numbers, strict=True) for _ in range(k)]
            for setting in itertools.product(*settings):
                context = dict(zip(sorted(values), setting, strict=True))
                yield Attributes.of(objects, homes, context)

    return scenes()


def _largest(condition: Condition, name: str) -> int:
    """The count of `name` beyond which the condition no longer changes."""
    if isinstance(condition, Has):
        if condition.name != name:
            return 1
        return max(condition.at_least, 0 if condition.at_most is None else condition.at_most + 1)
    parts = getattr(condition, "parts", None) or (getattr(condition, "part", None),)
    return max([1, *(_largest(part, name) for part in parts if part is not None)])
