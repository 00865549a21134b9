"""The verdict grammar: the one place that knows what an answer looks like.

    verdict  = [ "<think>" rationale "</think>" ] "<answer>" decision "</answer>"
    decision = "safe" | "unsafe: " rule-id { ", " rule-id }

A rationale is any text that is not blank and holds no tag, piece of a tag or template token. White
space is tolerated around the whole and nowhere else. Training targets are written with
`format_verdict`; rewards, evaluation and the command line read with `parse_verdict`. Whatever does
not match is `needs_review`, with the reason named: nothing broken is ever called safe.
"""

from __future__ import annotations

import dataclasses
import enum
import re
from collections.abc import Collection

from guardjax.policies.policy import RULE_ID, Label


class Outcome(enum.StrEnum):
    """What to do with a picture."""

    SAFE = "safe"
    UNSAFE = "unsafe"
    NEEDS_REVIEW = "needs_review"


class Problem(enum.StrEnum):
    """Every way in which an answer can be malformed, and a score undecided."""

    EMPTY = "empty"
    TRUNCATED = "truncated"
    NO_ANSWER = "no_answer"
    TWO_ANSWERS = "two_answers"
    TWO_THINKS = "two_thinks"
    NESTED = "nested"
    ANSWER_IN_THINK = "answer_in_think"
    THINK_IN_ANSWER = "think_in_answer"
    THINK_AFTER_ANSWER = "think_after_answer"
    UNCLOSED_THINK = "unclosed_think"
    UNCLOSED_ANSWER = "unclosed_answer"
    STRAY_CLOSING_TAG = "stray_closing_tag"
    MISSPELT_TAG = "misspelt_tag"
    TEXT_OUTSIDE = "text_outside"
    EMPTY_THINK = "empty_think"
    TEMPLATE_TOKEN = "template_token"
    EMPTY_ANSWER = "empty_answer"
    SPACE_IN_ANSWER = "space_in_answer"
    WRONG_CASE = "wrong_case"
    UNKNOWN_WORD = "unknown_word"
    SAFE_WITH_RULE = "safe_with_rule"
    UNSAFE_WITHOUT_RULE = "unsafe_without_rule"
    MALFORMED_RULES = "malformed_rules"
    DUPLICATE_RULE = "duplicate_rule"
    UNKNOWN_RULE = "unknown_rule"
    # Of a verdict read off the model's probabilities (`guardjax.eval.scoring`), not off a text.
    MASS_OUTSIDE = "mass_outside"
    UNDECIDED = "undecided"
    NOT_FINITE = "not_finite"


@dataclasses.dataclass(frozen=True)
class Verdict:
    """A parsed answer. `problem` is None exactly where the outcome is safe or unsafe."""

    outcome: Outcome
    rule_ids: tuple[str, ...] = ()
    rationale: str | None = None
    problem: Problem | None = None


_BLANK = " \t\r\n"
# These are linear in the text, whatever a model writes.
_TAG = re.compile(r"<[\s/]*(?:think|answer)[\s/]*>", re.IGNORECASE)
_BROKEN_TAG = re.compile(r"<\s*(?:/|think|answer)", re.IGNORECASE)
_TEMPLATE_TOKEN = re.compile(r"<\|[^<>|]*\|>")
_RULES = re.compile(rf"{RULE_ID.pattern}(?:, {RULE_ID.pattern})*")
_NO_THINK_FORM = ["<answer>", "</answer>"]
_THINK_FORM = ["<think>", "</think>", *_NO_THINK_FORM]


def format_verdict(label: Label, rationale: str | None = None) -> str:
    """The answer that states `label`, with a think block where a rationale is given.

    Raises:
      ValueError: the rationale is blank or contains tags, so that it could not be read back.
    """
    decision = "safe" if label.verdict == "safe" else f"unsafe: {', '.join(label.rule_ids)}"
    text = f"<answer>{decision}</answer>"
    if rationale is not None:
        text = f"<think>{rationale.strip(_BLANK)}</think>{text}"
    problem = parse_verdict(text).problem
    if problem is not None:
        raise ValueError(
            f"rationale {rationale!r} would make the answer malformed ({problem}); "
            f"write plain words without tags"
        )
    return text


def parse_verdict(
    text: str, known_rules: Collection[str] | None = None, *, truncated: bool = False
) -> Verdict:
    """Reads an answer; never raises for what a model may write.

    Args:
      text: the whole completion, decoded, without its end token.
      known_rules: the policy's rule ids; a cited rule outside them is `unknown_rule`. None
        leaves the ids unchecked.
      truncated: whether the token limit cut the completion; then nothing in it counts.
    """
    if truncated:
        return _review(Problem.TRUNCATED)
    body = text.strip(_BLANK)
    if not body:
        return _review(Problem.EMPTY)
    tags = list(_TAG.finditer(body))
    found = [tag.group() for tag in tags]
    if found not in (_NO_THINK_FORM, _THINK_FORM):
        return _review(_tag_problem(found))
    # Text before, between and after the blocks; the tags are in the right order here.
    outside = body[: tags[0].start()] + body[tags[-1].end():]
    if len(tags) == 4:
        outside += body[tags[1].end() : tags[2].start()]
    if outside:
        return _review(Problem.TEXT_OUTSIDE)
    rationale = None
    if len(tags) == 4:
        rationale = body[tags[0].end() : tags[1].start()].strip(_BLANK)
        if not rationale.strip():
            return _review(Problem.EMPTY_THINK)
        if _BROKEN_TAG.search(rationale):
            return _review(Problem.MISSPELT_TAG)
        if _TEMPLATE_TOKEN.search(rationale):
            return _review(Problem.TEMPLATE_TOKEN)
    return _decide(body[tags[-2].end() : tags[-1].start()], rationale, known_rules)


def _review(problem: Problem, rationale: str | None = None) -> Verdict:
    return Verdict(Outcome.NEEDS_REVIEW, (), rationale, problem)


def _decide(decision: str, rationale: str | None, known: Collection[str] | None) -> Verdict:
    if decision == "safe":
        return Verdict(Outcome.SAFE, (), rationale)
    prefix = "unsafe: "
    cited = decision[len(prefix):]
    if not decision.startswith(prefix) or not _RULES.fullmatch(cited):
        return _review(_decision_problem(decision), rationale)
    rule_ids = tuple(cited.split(", "))
    if len(set(rule_ids)) != len(rule_ids):
        return _review(Problem.DUPLICATE_RULE, rationale)
    if known is not None and not set(rule_ids) <= set(known):
        return _review(Problem.UNKNOWN_RULE, rationale)
    return Verdict(Outcome.UNSAFE, rule_ids, rationale)


def _decision_problem(decision: str) -> Problem:
    """Names what is wrong with the words inside the answer tags (known to be wrong)."""
    bare = decision.strip()
    if not bare:
        return Problem.EMPTY_ANSWER
    word, colon, rest = bare.partition(":")
    if word in ("safe", "unsafe"):
        if word == "safe" and colon:
            return Problem.SAFE_WITH_RULE
        if word == "unsafe" and not rest.strip():
            return Problem.UNSAFE_WITHOUT_RULE
        if bare != decision:
            return Problem.SPACE_IN_ANSWER
        return Problem.MALFORMED_RULES
    if word.lower() in ("safe", "unsafe"):
        return Problem.WRONG_CASE
    return Problem.UNKNOWN_WORD


def _tag_problem(tags: list[str]) -> Problem:
    """Names what is wrong with the order of the tags (known to be wrong)."""
    if any(tag not in _THINK_FORM for tag in tags):
        return Problem.MISSPELT_TAG
    if "<think>" in tags and "</think>" not in tags:
        return Problem.UNCLOSED_THINK
    seen_answers = seen_thinks = 0
    inside: str | None = None
    for tag in tags:
        name, closing = tag.strip("</>"), tag.startswith("</")
        if closing:
            if inside != name:
                return Problem.STRAY_CLOSING_TAG if inside is None else _crossing(inside, name)
            inside = None
            continue
        if inside is not None:
            return _crossing(inside, name)
        inside = name
        if name == "answer":
            seen_answers += 1
            if seen_answers > 1:
                return Problem.TWO_ANSWERS
        else:
            seen_thinks += 1
            if seen_thinks > 1:
                return Problem.TWO_THINKS
            if seen_answers:
                return Problem.THINK_AFTER_ANSWER
    if inside is not None:
        return Problem.UNCLOSED_THINK if inside == "think" else Problem.UNCLOSED_ANSWER
    return Problem.NO_ANSWER


def _crossing(inside: str, name: str) -> Problem:
    """A tag of `name` appears while `inside` is still open."""
    if inside == name:
        return Problem.NESTED
    return Problem.ANSWER_IN_THINK if inside == "think" else Problem.THINK_IN_ANSWER
