"""Conditions over the named attributes of a picture: what a rule can ask, as data.

A condition is a small frozen tree. It can be executed (`holds`), searched (`names`, `contexts`)
and compared by meaning (`canonical`); `wording.py` turns it into words and `yaml_io.py` into YAML.
"""

from __future__ import annotations

import abc
import collections
import dataclasses
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_WORD = re.compile(r"[a-z0-9][a-z0-9_-]*")


class MissingAttribute(KeyError):
    """A condition asks for something that the attributes do not say (so it cannot be judged)."""

    def __str__(self) -> str:  # KeyError would print the message in quotes
        return str(self.args[0])


def _check_word(what: str, word: object) -> None:
    if not isinstance(word, str) or not _WORD.fullmatch(word):
        raise ValueError(
            f"{what} {word!r} is not one lower-case word of letters, digits, '-' and '_'; "
            f"write it like 'knife'"
        )


@dataclasses.dataclass(frozen=True)
class Attributes:
    """What is in one picture.

    `counts` holds object names and category names alike (a knife counts once as "knife" and once
    as "weapons"); a name that is not there counts 0. `context` names the setting, for example
    `{"place": "garden", "light": "dark"}`. `objects` are the object names present and `categories`
    their categories; only `OtherThan` reads those two. Build with `Attributes.of`.
    """

    counts: Mapping[str, int]
    context: Mapping[str, str] = dataclasses.field(default_factory=dict)
    objects: frozenset[str] | None = None  # None: not listed, and `OtherThan` cannot be judged
    categories: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(
        cls,
        objects: Sequence[str],
        category_of: Mapping[str, str],
        context: Mapping[str, str] | None = None,
    ) -> Attributes:
        """Attributes of a picture that shows `objects` (repeat a name for two of a kind).

        Raises:
          MissingAttribute: an object has no category in `category_of`.
          ValueError: a name is both an object and a category, so that counts would mix.
        """
        counts: collections.Counter[str] = collections.Counter()
        for name in objects:
            if name not in category_of:
                raise MissingAttribute(f"object {name!r} has no category; add it to category_of")
            counts[name] += 1
            counts[category_of[name]] += 1
        present = frozenset(objects)
        categories = {name: category_of[name] for name in sorted(present)}
        mixed = present & set(categories.values())
        if mixed:
            raise ValueError(
                f"{sorted(mixed)} name both an object and a category; rename the objects"
            )
        return cls(dict(counts), dict(context or {}), present, categories)


class Condition(abc.ABC):
    """A question about a picture with a yes-or-no answer."""

    @abc.abstractmethod
    def holds(self, attributes: Attributes) -> bool:
        """Whether the picture meets the condition. Raises `MissingAttribute` if it cannot say."""

    @abc.abstractmethod
    def names(self) -> frozenset[str]:
        """The object and category names that the condition mentions."""

    @abc.abstractmethod
    def contexts(self) -> frozenset[tuple[str, str]]:
        """The (context, value) pairs that the condition mentions."""

    @abc.abstractmethod
    def plain(self) -> Any:
        """The condition as strings, numbers, lists and dicts: its form in YAML and in hashes."""

    @abc.abstractmethod
    def canonical(self) -> list:
        """JSON-ready form that is equal for conditions that differ only in spelling.

        Order of parts, nesting of like connectives, double negation and one-part connectives do
        not matter. It is a normal form of spelling, not a decision procedure for logic.
        """


@dataclasses.dataclass(frozen=True)
class Has(Condition):
    """Between `at_least` and `at_most` (None: no limit) of an object or a category."""

    name: str
    at_least: int = 1
    at_most: int | None = None

    def __post_init__(self) -> None:
        _check_word("name", self.name)
        for key, value in (("at_least", self.at_least), ("at_most", self.at_most)):
            if value is None and key == "at_most":
                continue
            if not isinstance(value, int) or isinstance(value, bool) or value < 0:
                raise ValueError(f"{key} of {self.name!r} is {value!r}; give a whole number >= 0")
        if self.at_most is not None and self.at_most < self.at_least:
            raise ValueError(
                f"{self.name!r} cannot be at least {self.at_least} and at most {self.at_most}; "
                f"swap them"
            )
        if self.at_least == 0 and self.at_most is None:
            raise ValueError(
                f"'at least 0 {self.name}' always holds; give at_least >= 1 or an at_most"
            )

    def holds(self, attributes: Attributes) -> bool:
        number = attributes.counts.get(self.name, 0)
        return number >= self.at_least and (self.at_most is None or number <= self.at_most)

    def names(self) -> frozenset[str]:
        return frozenset((self.name,))

    def contexts(self) -> frozenset[tuple[str, str]]:
        return frozenset()

    def plain(self) -> Any:
        if self == Has(self.name):
            return self.name
        count: dict[str, Any] = {"name": self.name, "at_least": self.at_least}
        if self.at_most is not None:
            count["at_most"] = self.at_most
        return {"count": count}

    def canonical(self) -> list:
        return ["has", self.name, self.at_least, self.at_most]


@dataclasses.dataclass(frozen=True)
class Is(Condition):
    """The context `name` (such as "place") has this value."""

    name: str
    value: str

    def __post_init__(self) -> None:
        _check_word("context", self.name)
        _check_word(f"value of context {self.name!r}", self.value)

    def holds(self, attributes: Attributes) -> bool:
        if self.name not in attributes.context:
            raise MissingAttribute(
                f"context {self.name!r} is not among the picture's contexts "
                f"{sorted(attributes.context)}; give it a value or drop the condition"
            )
        return attributes.context[self.name] == self.value

    def names(self) -> frozenset[str]:
        return frozenset()

    def contexts(self) -> frozenset[tuple[str, str]]:
        return frozenset(((self.name, self.value),))

    def plain(self) -> Any:
        return {"is": {self.name: self.value}}

    def canonical(self) -> list:
        return ["is", self.name, self.value]


@dataclasses.dataclass(frozen=True)
class OtherThan(Condition):
    """Some object is outside the allowed `allowed` (object or category names): an allow-list."""

    allowed: tuple[str, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "allowed", tuple(self.allowed))
        if not self.allowed:
            raise ValueError("other_than allows nothing; name at least one object or category")
        for name in self.allowed:
            _check_word("name", name)

    def holds(self, attributes: Attributes) -> bool:
        if attributes.objects is None:
            raise MissingAttribute(
                "the attributes do not list the objects, which an allow-list needs; "
                "build them with Attributes.of"
            )
        return any(
            name not in self.allowed and attributes.categories.get(name) not in self.allowed
            for name in attributes.objects
        )

    def names(self) -> frozenset[str]:
        return frozenset(self.allowed)

    def contexts(self) -> frozenset[tuple[str, str]]:
        return frozenset()

    def plain(self) -> Any:
        return {"other_than": list(self.allowed)}

    def canonical(self) -> list:
        return ["other_than", *sorted(set(self.allowed))]


@dataclasses.dataclass(frozen=True)
class Not(Condition):
    """The part does not hold."""

    part: Condition

    def __post_init__(self) -> None:
        _check_parts("not", (self.part,))

    def holds(self, attributes: Attributes) -> bool:
        return not self.part.holds(attributes)

    def names(self) -> frozenset[str]:
        return self.part.names()

    def contexts(self) -> frozenset[tuple[str, str]]:
        return self.part.contexts()

    def plain(self) -> Any:
        return {"not": self.part.plain()}

    def canonical(self) -> list:
        inner = self.part.canonical()
        if inner[0] == "not":
            return inner[1]
        if inner[0] == "has" and inner[3] is None:  # not (n or more) = at most n - 1
            return ["has", inner[1], 0, inner[2] - 1]
        if inner[0] == "has" and inner[2] == 0:     # not (at most n) = n + 1 or more
            return ["has", inner[1], inner[3] + 1, None]
        return ["not", inner]


class _Connective(Condition):
    """What `All` and `AnyOf` share: a non-empty tuple of parts."""

    parts: tuple[Condition, ...]
    key: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "parts", tuple(self.parts))
        _check_parts(self.key, self.parts)

    def names(self) -> frozenset[str]:
        return frozenset().union(*(part.names() for part in self.parts))

    def contexts(self) -> frozenset[tuple[str, str]]:
        return frozenset().union(*(part.contexts() for part in self.parts))

    def plain(self) -> Any:
        return {self.key: [part.plain() for part in self.parts]}

    def canonical(self) -> list:
        flat: list[list] = []
        for part in self.parts:
            inner = part.canonical()
            flat.extend(inner[1:] if inner[0] == self.key else [inner])
        unique = sorted({json.dumps(part) for part in flat})
        if len(unique) == 1:
            return json.loads(unique[0])
        return [self.key, *(json.loads(part) for part in unique)]


@dataclasses.dataclass(frozen=True)
class All(_Connective):
    """Every part holds."""

    parts: tuple[Condition, ...]
    key = "all"

    def holds(self, attributes: Attributes) -> bool:
        # Every part is asked, so that a missing context shows whatever the order of the parts.
        return all([part.holds(attributes) for part in self.parts])


@dataclasses.dataclass(frozen=True)
class AnyOf(_Connective):
    """At least one part holds."""

    parts: tuple[Condition, ...]
    key = "any"

    def holds(self, attributes: Attributes) -> bool:
        return any([part.holds(attributes) for part in self.parts])


def _check_parts(key: str, parts: Iterable[object]) -> None:
    parts = tuple(parts)
    if not parts:
        raise ValueError(f"'{key}' has no parts; give at least one condition")
    for part in parts:
        if not isinstance(part, Condition):
            raise ValueError(f"'{key}' has part {part!r}, which is not a condition; use Has(name)")
