"""Seeded random policies over a vocabulary of things that pictures can show.

Policies have one to three short rules and ban harmless things as often as harmful ones, so that
nothing but the policy tells a guard what to flag.
"""

from __future__ import annotations

import dataclasses
import enum
import random
from collections.abc import Callable, Collection, Mapping, Sequence

from guardjax.policies.condition import All, AnyOf, Condition, Has, Is, Not, OtherThan
from guardjax.policies.policy import Policy, Rule


class Shape(enum.StrEnum):
    """The logical form of a rule."""

    CATEGORY = "category"          # no weapons
    OBJECT = "object"              # no knife, axe or bow (one to three of one category)
    ANY = "any"                    # no knife or animals (of different categories)
    COOCCURRENCE = "cooccurrence"  # no knife with dog
    COUNT = "count"                # no more than one knife
    CONTEXT = "context"            # no knife in garden
    ABSENCE = "absence"            # no knife without dog
    EXCEPTION = "exception"        # no weapons, except with dog
    ALLOW_LIST = "allow_list"      # only animals or food allowed


# Plain bans are most of what people write, and they are what the other shapes are learned from.
_WEIGHTS: Mapping[Shape, float] = {
    Shape.CATEGORY: 4.0, Shape.OBJECT: 4.0, Shape.ANY: 2.0, Shape.COOCCURRENCE: 1.0,
    Shape.COUNT: 1.0, Shape.CONTEXT: 1.0, Shape.ABSENCE: 1.0, Shape.EXCEPTION: 1.0,
    Shape.ALLOW_LIST: 1.0,
}
_Made = tuple[Condition, Condition | None]  # what is banned, and the exception
_RULES = ((1, 0.45), (2, 0.35), (3, 0.20))  # number of rules and its probability


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """What policies can talk about.

    `categories` maps a category to its objects, `harmful` names the categories of harm and
    `contexts` maps a context ("place") to its values. Every name is in one place only.
    """

    categories: Mapping[str, tuple[str, ...]]
    harmful: tuple[str, ...]
    contexts: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        empty = [name for name, objects in self.categories.items() if not objects]
        if empty or not self.categories:
            raise ValueError(f"categories {empty or 'of the vocabulary'} are empty; name objects")
        names = [*self.categories, *(o for objects in self.categories.values() for o in objects)]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"names {twice} appear twice in the vocabulary; rename one of each")
        unknown = sorted(set(self.harmful) - set(self.categories))
        if unknown:
            raise ValueError(f"harmful categories {unknown} are not in the vocabulary; add them")
        for name in names:
            Has(name)  # a name must be one word
        for context, values in self.contexts.items():
            for value in values:
                Is(context, value)

    @property
    def harmless(self) -> tuple[str, ...]:
        """The categories that are not harmful, in the order given."""
        return tuple(name for name in self.categories if name not in self.harmful)

    @property
    def category_of(self) -> dict[str, str]:
        """Object to category, as `Attributes.of` wants it."""
        return {o: category for category, objects in self.categories.items() for o in objects}

    def without(self, categories: Collection[str]) -> Vocabulary:
        """The vocabulary less some categories and all of their objects."""
        return Vocabulary(
            {name: o for name, o in self.categories.items() if name not in categories},
            tuple(name for name in self.harmful if name not in categories),
            self.contexts,
        )


def generate_policy(
    seed: int | str,
    vocabulary: Vocabulary,
    shapes: Collection[Shape | str] = tuple(Shape),
    *,
    lead_shapes: Collection[Shape | str] | None = None,
    subjects: Collection[str] | None = None,
    focus: Sequence[str] = (),
) -> Policy:
    """One random policy of one to three rules, R1, R2 and R3; the same seed gives the same policy.

    Args:
      seed: any int or text.
      vocabulary: the names to draw from.
      shapes: the rule shapes to draw from.
      lead_shapes: shapes of one rule, at a random place, that every policy has; None for no such
        rule.
      subjects: categories that every rule's main name comes from; None for all.
      focus: object and category names (of one picture, say) that about half of the main names
        are drawn from, so that the policy has something to do with the picture; names outside
        the vocabulary or the subjects are passed over.

    Raises:
      ValueError: no shape can be made from the vocabulary, or a subject is not in it.
    """
    draw = _Draw(random.Random(f"policy/{seed}"), vocabulary, subjects, focus)
    number = draw.rng.choices([n for n, _ in _RULES], [weight for _, weight in _RULES])[0]
    made = [_make(draw, lead_shapes)] if lead_shapes is not None else []
    while number > len(made):
        rule = _make(draw, shapes)
        if any(rule[0].canonical() == other[0].canonical() for other in made):
            number -= 1  # a second ban of the same thing would only make citations ambiguous
        else:
            made.append(rule)
    if lead_shapes is not None:
        made.insert(draw.rng.randrange(len(made)), made.pop(0))
    built = tuple(
        Rule(f"R{i}", when, unless) for i, (when, unless) in enumerate(made, start=1)
    )
    draft = Policy("draft", "1", "Generated policy", built)
    return dataclasses.replace(draft, id=f"gen-{draft.content_hash}")


class _Draw:
    """Random names of a vocabulary."""

    def __init__(
        self,
        rng: random.Random,
        vocabulary: Vocabulary,
        subjects: Collection[str] | None,
        focus: Sequence[str],
    ):
        self.rng, self.vocabulary = rng, vocabulary
        self.category_of = vocabulary.category_of
        unknown = sorted(set(subjects or ()) - set(vocabulary.categories))
        if unknown or (subjects is not None and not subjects):
            raise ValueError(f"subjects {unknown} are not categories of the vocabulary; name some")
        allowed = set(vocabulary.categories if subjects is None else subjects)
        self.harmful = [name for name in vocabulary.harmful if name in allowed]
        self.harmless = [name for name in vocabulary.harmless if name in allowed]
        self.focus = [name for name in dict.fromkeys(focus) if self.home(name) in allowed]

    def home(self, name: str) -> str | None:
        """The category that a name is or belongs to; None for an unknown name."""
        return name if name in self.vocabulary.categories else self.category_of.get(name)

    def category(self) -> str:
        """A category for a main name: harm and harmless alike, whatever their numbers."""
        if self.focus and self.rng.random() < 0.5:
            return self.home(self.rng.choice(self.focus))
        groups = [group for group in (self.harmful, self.harmless) if group]
        return self.rng.choice(self.rng.choice(groups))

    def object_in(self, category: str) -> str:
        shown = [name for name in self.focus if self.category_of.get(name) == category]
        if shown and self.rng.random() < 0.7:
            return self.rng.choice(shown)
        return self.rng.choice(self.vocabulary.categories[category])

    def name(self) -> str:
        """A main name: a category or an object."""
        category = self.category()
        return category if self.rng.random() < 0.5 else self.object_in(category)

    def companion(self, *taken: str) -> str:
        """A name of any category except those of the names taken (not only of the subjects)."""
        used = {self.home(name) for name in taken}
        category = self.rng.choice([c for c in self.vocabulary.categories if c not in used])
        return category if self.rng.random() < 0.5 else self.object_in(category)

    def setting(self) -> Is:
        context = self.rng.choice(list(self.vocabulary.contexts))
        return Is(context, self.rng.choice(self.vocabulary.contexts[context]))


def _make(draw: _Draw, shapes: Collection[Shape | str]) -> _Made:
    choices = _possible(shapes, draw.vocabulary)
    shape = draw.rng.choices(choices, [_WEIGHTS[choice] for choice in choices])[0]
    return _MAKERS[shape](draw)


def _category(draw: _Draw) -> _Made:
    return Has(draw.category()), None


def _object(draw: _Draw) -> _Made:
    category = draw.category()
    first = draw.object_in(category)
    others = [name for name in draw.vocabulary.categories[category] if name != first]
    number = min(draw.rng.choice((0, 0, 1, 2)), len(others))
    return _any_of(first, *draw.rng.sample(others, number)), None


def _any(draw: _Draw) -> _Made:
    names = [draw.name()]
    for _ in range(draw.rng.choice((1, 1, 2))):
        other = draw.name()
        homes = {draw.home(name) for name in names}
        # Few subjects soon run out of other categories; companions never do.
        names.append(draw.companion(*names) if draw.home(other) in homes else other)
    return _any_of(*names), None


def _cooccurrence(draw: _Draw) -> _Made:
    name = draw.name()
    return All((Has(name), Has(draw.companion(name)))), None


def _count(draw: _Draw) -> _Made:
    return Has(draw.name(), at_least=draw.rng.choice((2, 2, 2, 3))), None


def _context(draw: _Draw) -> _Made:
    return All((Has(draw.name()), draw.setting())), None


def _absence(draw: _Draw) -> _Made:
    name = draw.name()
    return All((Has(name), Not(Has(draw.companion(name))))), None


def _exception(draw: _Draw) -> _Made:
    name = draw.category()
    if draw.vocabulary.contexts and draw.rng.random() < 0.5:
        return Has(name), draw.setting()
    return Has(name), Has(draw.companion(name))


def _allow_list(draw: _Draw) -> _Made:
    # Long enough that some pictures comply: pictures show several things of several categories.
    number = draw.rng.choice((3, 4, 5, 6))
    names = list(dict.fromkeys(draw.category() for _ in range(2 * number)))[:number]
    return OtherThan(tuple(names)), None


_MAKERS: Mapping[Shape, Callable[[_Draw], _Made]] = {
    Shape.CATEGORY: _category, Shape.OBJECT: _object, Shape.ANY: _any,
    Shape.COOCCURRENCE: _cooccurrence, Shape.COUNT: _count, Shape.CONTEXT: _context,
    Shape.ABSENCE: _absence, Shape.EXCEPTION: _exception, Shape.ALLOW_LIST: _allow_list,
}


def _any_of(*names: str) -> Condition:
    parts = tuple(Has(name) for name in names)
    return parts[0] if len(parts) == 1 else AnyOf(parts)


def _possible(shapes: Collection[Shape | str], vocabulary: Vocabulary) -> list[Shape]:
    """The shapes asked for that the vocabulary can fill, in the order of `Shape`."""
    asked = {Shape(shape) for shape in shapes}
    possible = [shape for shape in Shape if shape in asked]
    if not vocabulary.contexts:
        possible = [shape for shape in possible if shape is not Shape.CONTEXT]
    if len(vocabulary.categories) < 4:
        # Companions and mixed choices need other categories to draw from.
        alone = (Shape.CATEGORY, Shape.OBJECT, Shape.COUNT, Shape.CONTEXT, Shape.ALLOW_LIST)
        possible = [shape for shape in possible if shape in alone]
    if not possible:
        raise ValueError(
            f"shapes {sorted(map(str, asked))} cannot be made from {len(vocabulary.categories)} "
            f"categories and {len(vocabulary.contexts)} contexts; ask for other shapes or add names"
        )
    return possible
