"""How an answer is asked for and read: a reasoned verdict, one token, or the probability of unsafe.

`reasoned`: the model writes its whole answer, which the verdict grammar reads; rules are cited.
`one_token`: the answer is made to begin as every verdict does, and the likeliest next token must be
the one that says safe or the one that says unsafe; anything else needs review.
`probability`: of the same position, P(unsafe) is the softmax over the two tokens alone, and `mass`
is what the model gives to both of all its vocabulary. A picture is unsafe where P(unsafe) exceeds
the threshold. It needs review where P(unsafe) is within `margin` of the threshold (a tie, by
default), where the mass is below `min_mass`, since the model then wants to say something else, and
where a number is not finite.

The last two take one forward pass and no decoding. They cite no rules and skip a rationale, so a
model that was trained to reason first is asked something else by them.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import NamedTuple

from guardjax.policies import Label, Outcome, Problem, Verdict, format_verdict

REASONED, ONE_TOKEN, PROBABILITY = "reasoned", "one_token", "probability"
MODES = (REASONED, ONE_TOKEN, PROBABILITY)


class ScoringError(ValueError):
    """A way of scoring that does not exist, or that this model cannot do."""


@dataclasses.dataclass(frozen=True)
class Scoring:
    """A mode and the rule that turns P(unsafe) into a verdict; only "probability" reads the rule.

    Raises `ScoringError`, naming the value and its limits.
    """

    mode: str = REASONED
    threshold: float = 0.5
    margin: float = 0.0
    min_mass: float = 0.5

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ScoringError(f"scoring {self.mode!r} is none; choose one of {', '.join(MODES)}")
        for name in ("threshold", "margin", "min_mass"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise ScoringError(f"{name} is {value}; it is a probability, from 0 to 1")
            usual = type(self).__dataclass_fields__[name].default
            if self.mode != PROBABILITY and value != usual:
                raise ScoringError(f"{name}={value} is for scoring 'probability', and this is "
                                   f"{self.mode!r}, which does not read it: leave it out")

    def __str__(self) -> str:
        """What identifies verdicts of this scoring."""
        if self.mode != PROBABILITY:
            return self.mode
        return (f"{self.mode} threshold={self.threshold:g} margin={self.margin:g} "
                f"min_mass={self.min_mass:g}")


class AnswerTokens(NamedTuple):
    """How a verdict begins, and the tokens that decide it."""

    begun: tuple[int, ...]
    safe: int
    unsafe: int


@dataclasses.dataclass(frozen=True)
class Score:
    """What the model gives to the two tokens that decide."""

    p_unsafe: float     # of the two alone
    mass: float         # of all the vocabulary, to both together
    token: int          # the likeliest of those that may be sampled
    likeliest: str      # its text


class Reply(NamedTuple):
    """A model's answer to one prompt; `verdict` and `score` where it did not write one itself.

    `prompt_tokens` has those of the picture, and of what the answer was made to begin with;
    `answer_tokens` those that were sampled. None: not known.
    """

    text: str
    truncated: bool
    verdict: Verdict | None = None
    score: Score | None = None
    prompt_tokens: int | None = None
    answer_tokens: int | None = None


def answer_tokens(encode: Callable[[str], list[int]]) -> AnswerTokens:
    """The first place where a safe and an unsafe verdict differ, as `encode` writes them in ids.

    Raises:
      ScoringError: they do not part in one token, whatever rule is cited.
    """
    safe, *unsafe = (encode(format_verdict(label)) for label in (
        Label("safe"), Label("unsafe", ("R1",)), Label("unsafe", ("R2", "R3"))))
    places = {_first_difference(safe, other) for other in unsafe}
    place = places.pop()
    tokens = {other[place] if place < len(other) else None for other in unsafe}
    if places or len(tokens) != 1 or None in tokens or place >= len(safe):
        raise ScoringError("this tokenizer writes safe and unsafe verdicts so that no one token "
                           "tells them apart; use scoring 'reasoned'")
    return AnswerTokens(tuple(safe[:place]), safe[place], tokens.pop())


def read_score(score: Score, answer: AnswerTokens, scoring: Scoring) -> Verdict:
    """The verdict of a score, without rules; whatever is not clear needs review."""
    if not all(math.isfinite(value) for value in (score.p_unsafe, score.mass)):
        return _review(Problem.NOT_FINITE)
    if scoring.mode == ONE_TOKEN:
        said = {answer.safe: Outcome.SAFE, answer.unsafe: Outcome.UNSAFE}.get(score.token)
        return _review(Problem.UNKNOWN_WORD) if said is None else Verdict(said)
    if score.mass < scoring.min_mass:
        return _review(Problem.MASS_OUTSIDE)
    if abs(score.p_unsafe - scoring.threshold) <= scoring.margin:
        return _review(Problem.UNDECIDED)
    unsafe = score.p_unsafe > scoring.threshold
    return Verdict(Outcome.UNSAFE if unsafe else Outcome.SAFE)


def say_score(score: Score, scoring: Scoring) -> str:
    """What stands in the place of the model's own words."""
    if scoring.mode == ONE_TOKEN:
        return score.likeliest
    return f"P(unsafe) {score.p_unsafe:.6f}, mass {score.mass:.6f}"


def _first_difference(one: list[int], other: list[int]) -> int:
    return next((place for place, pair in enumerate(zip(one, other)) if pair[0] != pair[1]),
                min(len(one), len(other)))


def _review(problem: Problem) -> Verdict:
    return Verdict(Outcome.NEEDS_REVIEW, problem=problem)
