"""From a condition to words: the phrase templates (styles) and the verbaliser.

The words are few and short, because the smallest models read them, and names appear verbatim and
uncountable ("no knife"), so that a name is the same tokens wherever it stands. Held-out styles
share no sentence frame with the training styles; the operator words ("with", "without", "more
than one") come from the training styles on purpose: their meaning cannot be guessed from a page,
and a test of new frames should not be a test of unknown operators.
"""

from __future__ import annotations

import dataclasses
import random

from guardjax.policies.condition import All, AnyOf, Condition, Has, Is, Not, OtherThan


@dataclasses.dataclass(frozen=True)
class Style:
    """One way to phrase every kind of rule. `{x}` is what is banned or what alone is allowed."""

    name: str
    ban: str                    # "no {x}"
    only: str                   # "only {x} allowed"
    unless: str                 # joins the exception: "no {x}, except with dog"
    joined: str = "with"        # "knife with dog"
    lacking: str = "without"    # "knife without dog"
    many: str = "more than"     # "more than" one, or "or more": two or more


# Every frame reads well with a singular and a plural name, since names are put in verbatim.
TRAIN_STYLES: tuple[Style, ...] = (
    Style("no", "no {x}", "only {x} allowed", "except"),
    Style("ban", "ban {x}", "ban all but {x}", "unless", many="or more"),
    Style("show", "do not show {x}", "show only {x}", "except", joined="together with",
          many="or more"),
    Style("appear", "{x} must not appear", "only {x} may appear", "unless", lacking="with no"),
    Style("forbid", "we forbid {x}", "we forbid all but {x}", "except", joined="plus"),
    Style("never", "never show {x}", "never show anything but {x}", "unless", lacking="with no"),
)

HELD_OUT_STYLES: tuple[Style, ...] = (
    Style("breaks", "anything showing {x} breaks the rules",
          "anything besides {x} breaks the rules", "except"),
    Style("keep", "keep {x} out", "keep out everything besides {x}", "unless", many="or more"),
    Style("limits", "treat {x} as off limits", "treat everything besides {x} as off limits",
          "except", joined="together with", many="or more"),
    Style("prohibited", "pictures containing {x} are prohibited",
          "pictures containing things besides {x} are prohibited", "unless", lacking="with no"),
)


@dataclasses.dataclass(frozen=True)
class Wording:
    """How to put a policy into words: each rule draws its phrase from the seed and its own id.

    `shuffle` permutes the rules; an id travels with its rule.
    """

    seed: int
    styles: tuple[Style, ...] = TRAIN_STYLES
    shuffle: bool = False

    def __post_init__(self) -> None:
        if not self.styles:
            raise ValueError("a wording has no styles; give at least one, such as TRAIN_STYLES")

    def draw(self, subject: str) -> random.Random:
        """A generator that depends on the seed and the subject (a rule id) and on nothing else."""
        return random.Random(f"wording/{self.seed}/{subject}")  # strings are seeded by SHA-512


def verbalise(when: Condition, unless: Condition | None, style: Style) -> str:
    """One rule as a short lower-case clause without a full stop.

    >>> verbalise(Has("weapons"), Has("dog"), TRAIN_STYLES[0])
    'no weapons, except with dog'
    """
    if isinstance(when, OtherThan):
        clause = style.only.format(x=_listed(when.allowed))
    else:
        clause = style.ban.format(x=_thing(when, style))
    if unless is not None:
        clause += f", {style.unless} {_circumstance(unless, style)}"
    return clause


_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_PREPOSITIONS = {"home": "at", "stone": "on", "table": "on"}  # "in" for every other place
_LIGHT = {"dark": "in the dark", "bright": "in bright light"}


def _number(number: int) -> str:
    return _NUMBERS[number] if number < len(_NUMBERS) else str(number)


def _listed(words: tuple[str, ...] | list[str], last: str = "or") -> str:
    if len(words) == 1:
        return words[0]
    return f"{', '.join(words[:-1])} {last} {words[-1]}"


def _counted(has: Has, style: Style) -> str:
    low, high = has.at_least, has.at_most
    if high is None:
        if low == 1:
            return has.name
        if style.many == "or more":
            return f"{_number(low)} or more {has.name}"
        return f"more than {_number(low - 1)} {has.name}"
    if low == high:
        return f"exactly {_number(low)} {has.name}"
    if low == 0:
        return f"fewer than {_number(high + 1)} {has.name}"
    return f"{_number(low)} to {_number(high)} {has.name}"


def _is_list(condition: Condition, kind: type) -> bool:
    """Whether a condition is a plain one of `kind`, or a choice of nothing but those."""
    return isinstance(condition, kind) or (
        isinstance(condition, AnyOf) and all(isinstance(part, kind) for part in condition.parts)
    )


def _inner(condition: Condition, style: Style) -> str:
    """A thing inside a larger phrase, in brackets where its extent would be unclear."""
    text = _thing(condition, style)
    return text if _is_list(condition, Has) else f"({text})"


def _thing(condition: Condition, style: Style) -> str:
    """The condition as a noun phrase: "knife", "knife or beer", "knife with dog"."""
    if isinstance(condition, Has):
        return _counted(condition, style)
    if isinstance(condition, OtherThan):
        return f"anything but {_listed(condition.allowed)}"
    if isinstance(condition, AnyOf):
        if _is_list(condition, Has):
            return _listed([_counted(part, style) for part in condition.parts])
        # The comma tells "knife with dog, or cat" from "knife with dog or cat".
        return ", or ".join(
            _inner(part, style) if isinstance(part, AnyOf) else _thing(part, style)
            for part in condition.parts
        )
    if isinstance(condition, All):
        things = [part for part in condition.parts if _is_list(part, Has)]
        if not things:
            tails = [_circumstance(part, style) for part in condition.parts]
            return f"picture {' '.join(tails)}"
        head = things[0]
        rest = [part for part in condition.parts if part is not head]
        # Settings last: "knife with dog in garden", not "knife in garden with dog".
        rest.sort(key=lambda part: (not _is_list(part, Has), isinstance(part, Is)))
        return " ".join(
            [_thing(head, style), *(_circumstance(part, style, style.joined) for part in rest)]
        )
    return f"picture {_circumstance(condition, style)}"


def _circumstance(condition: Condition, style: Style, joined: str = "with") -> str:
    """The condition as a modifier: "with dog", "without dog", "in garden", "in the dark"."""
    if isinstance(condition, Is):
        return _setting(condition)
    if isinstance(condition, Not):
        part = condition.part
        if _is_list(part, Is):
            return f"not {_circumstance(part, style)}"
        lacking = style.lacking if isinstance(part, Has) else "without"
        return f"{lacking} {_inner(part, style)}"
    if isinstance(condition, AnyOf) and not _is_list(condition, Has):
        if _is_list(condition, Is):
            return _listed([_setting(part) for part in condition.parts])
        tails = (_circumstance(part, style) for part in condition.parts)
        return f"({', or '.join(tails)})"
    if isinstance(condition, All):
        # Inside a longer phrase the brackets keep "with dog in garden" one circumstance.
        return " ".join(_circumstance(part, style) for part in condition.parts)
    return f"{joined} {_inner(condition, style)}"


def _setting(condition: Is) -> str:
    if condition.name == "place":
        return f"{_PREPOSITIONS.get(condition.value, 'in')} {condition.value}"
    if condition.name == "light":
        return _LIGHT.get(condition.value, f"in {condition.value} light")
    return f"with {condition.name} {condition.value}"
