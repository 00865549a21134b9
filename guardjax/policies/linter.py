"""Warnings about a policy before anyone relies on it: broken logic, smuggled instructions.

A finding never stops anything by itself. Policy text is tokenised as data, so smuggled tags and
template tokens cannot become syntax; they are named here because an author should know.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
import unicodedata
from collections.abc import Mapping
from typing import Literal

from guardjax.policies.cases import distinct_scenes
from guardjax.policies.condition import OtherThan
from guardjax.policies.policy import Policy, Rule
from guardjax.policies.wording import Wording

MAX_RULE_WORDS = 40


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing to look at. `rule_id` is None where it concerns the whole text or policy."""

    level: Literal["error", "warning"]
    rule_id: str | None
    message: str

    def __str__(self) -> str:
        return f"{self.level}: {self.rule_id + ': ' if self.rule_id else ''}{self.message}"


_PATTERNS: tuple[tuple[re.Pattern[str], Literal["error", "warning"], str], ...] = (
    (re.compile(r"<\s*/?\s*(?:answer|think)\b[^>]*>?", re.I), "error",
     "contains the answer tag {found!r}; describe what is banned in plain words"),
    (re.compile(r"<\|[^>]*\|?>|<</?SYS>>|\[/?INST\]|</?s>|<(?:bos|eos|pad|unk|start_of_turn"
                r"|end_of_turn|image)>", re.I), "error",
     "contains the template token {found!r}; describe what is banned in plain words"),
    (re.compile(r"(?:^|[\s.;])(?:system|user|assistant|human)\s*:", re.I), "warning",
     "contains the role marker {found!r}; leave it out"),
    (re.compile(r"\b(?:always|only|just|must|please|then)\s+(?:answer|say|reply|respond|output"
                r"|return|write|print)\b", re.I), "warning",
     "tells the judge what to answer ({found!r}); say what is banned instead"),
    (re.compile(r"\b(?:answer|say|reply|respond|output|return|verdict\s*(?:is|:|=))\s*(?:with\s+)?"
                r"[\"'`]?(?:un)?safe\b", re.I), "warning",
     "tells the judge what to answer ({found!r}); say what is banned instead"),
    (re.compile(r"\b(?:ignore|disregard|forget|override)\s+(?:all|any|the|every|these|those"
                r"|previous|prior|above|other|your)\b", re.I), "warning",
     "asks to ignore something ({found!r}); use 'unless' for an exception"),
    (re.compile(r"\byou\s+are\s+(?:now|an?)\b", re.I), "warning",
     "speaks to the judge ({found!r}); say what is banned instead"),
    (re.compile(r"(?<![\w-])R\d+\s*:"), "warning",
     "contains {found!r}, which reads as the start of another rule; leave it out"),
)


def lint_text(text: str, rule_id: str | None = None) -> list[Finding]:
    """Findings about words alone: a wording, or a whole policy that is only text."""
    findings = []
    for pattern, level, message in _PATTERNS:
        match = pattern.search(text)
        if match:
            findings.append(Finding(level, rule_id, message.format(found=match.group().strip())))
    hidden = [c for c in text if unicodedata.category(c) in ("Cf", "Cc", "Co", "Cn", "Cs")
              and c not in "\n\r\t"]
    if hidden:
        findings.append(Finding(
            "error", rule_id,
            f"contains the invisible character U+{ord(hidden[0]):04X}; delete it",
        ))
    foreign = [c for c in text if ord(c) > 126 and c not in hidden]
    if foreign:
        findings.append(Finding(
            "warning", rule_id,
            f"contains the non-ASCII character {foreign[0]!r} (U+{ord(foreign[0]):04X}), which can "
            f"pass for another; use a plain one if that is what is meant",
        ))
    return findings


def lint_policy(policy: Policy, category_of: Mapping[str, str] | None = None) -> list[Finding]:
    """Findings about the words and the logic of a policy, in rule order.

    `category_of` (object to category) lets the logic see that a knife is one of the weapons;
    without it every name stands for itself. Logic is checked by trying all cases and is passed
    over for rules with too many of them.
    """
    findings = []
    for rule in policy.rules:
        findings += _lint_words(rule)
        findings += _lint_rule(rule, category_of)
    executable = [rule for rule in policy.rules if rule.when is not None]
    for first, second in itertools.combinations(executable, 2):
        findings += _lint_pair(first, second, category_of)
    return findings


def _lint_words(rule: Rule) -> list[Finding]:
    findings = []
    for text in rule.wordings or (rule.render(Wording(0)),):
        findings += lint_text(text, rule.id)
        words = len(text.split())
        if words > MAX_RULE_WORDS:
            findings.append(Finding(
                "warning", rule.id,
                f"is {words} words long, more than {MAX_RULE_WORDS}; split it into several rules",
            ))
    return list(dict.fromkeys(findings))


def _conditions(*rules: Rule) -> list:
    return [c for rule in rules for c in (rule.when, rule.unless) if c is not None]


def _lint_rule(rule: Rule, category_of: Mapping[str, str] | None) -> list[Finding]:
    if rule.when is None:
        return []
    scenes = distinct_scenes(_conditions(rule), category_of)
    if scenes is None:
        return []
    outcomes = {rule.violated(scene) for scene in scenes}
    if outcomes == {False}:
        return [Finding("error", rule.id, "can never be violated: its parts, or its exception, "
                                          "contradict the condition; correct it or drop it")]
    if outcomes == {True}:
        return [Finding("error", rule.id, "is violated by every picture; correct the condition")]
    if rule.unless is not None:
        scenes = distinct_scenes(_conditions(rule), category_of)
        if not any(rule.when.holds(scene) and rule.unless.holds(scene) for scene in scenes):
            return [Finding("warning", rule.id, "has an exception that never applies; drop it")]
    return []


def _lint_pair(
    first: Rule, second: Rule, category_of: Mapping[str, str] | None
) -> list[Finding]:
    duplicate = Finding("warning", second.id, f"is a duplicate of {first.id}: the same pictures "
                                              f"violate both; drop one")
    if (first.when, first.unless) == (second.when, second.unless):
        return [duplicate]
    scenes = distinct_scenes(_conditions(first, second), category_of)
    if scenes is None:
        return []
    cases = {(first.violated(scene), second.violated(scene)) for scene in scenes}
    if cases <= {(True, True), (False, False)}:
        return [duplicate]
    if (False, False) not in cases:
        return [Finding("error", second.id, f"contradicts {first.id}: every picture violates one "
                                            f"of the two; correct one")]
    findings = []
    for narrow, wide, gap in ((first, second, (True, False)), (second, first, (False, True))):
        if gap not in cases and any(a and b for a, b in cases):
            findings.append(Finding(
                "warning", narrow.id,
                f"is covered by {wide.id}: whatever violates it violates {wide.id} too; "
                f"drop it unless the citation matters",
            ))
    for ban, allow in ((first, second), (second, first)):
        clash = _banned_although_allowed(ban, allow)
        if clash:
            findings.append(Finding(
                "warning", ban.id,
                f"bans {', '.join(clash)}, which {allow.id} lists as allowed; take it off one",
            ))
    return findings


def _banned_although_allowed(ban: Rule, allow: Rule) -> list[str]:
    if not isinstance(allow.when, OtherThan) or isinstance(ban.when, OtherThan):
        return []
    return sorted(ban.when.names() & allow.when.names())
