"""A policy as data: from one object come its text, its label for a picture and the rules it cites.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from typing import Literal

from guardjax.policies.condition import All, AnyOf, Attributes, Condition, Not
from guardjax.policies.wording import Wording, verbalise

Severity = Literal["low", "medium", "high"]
SEVERITIES: tuple[Severity, ...] = ("low", "medium", "high")
RULE_ID = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_POLICY_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_HASH_DIGITS = 16  # 64 bits: enough to tell policies apart, short enough to read


class NotExecutable(ValueError):
    """A policy written in words only cannot be executed on attributes."""


@dataclasses.dataclass(frozen=True)
class Label:
    """What is true of a picture under a policy; `rule_ids` are the violated rules."""

    verdict: str
    rule_ids: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "rule_ids", tuple(self.rule_ids))
        if self.verdict not in ("safe", "unsafe"):
            raise ValueError(f"label {self.verdict!r} is not 'safe' or 'unsafe'; correct the data")
        if (self.verdict == "unsafe") != bool(self.rule_ids):
            raise ValueError(
                f"label {self.verdict!r} with rules {list(self.rule_ids)}: 'unsafe' cites at least "
                f"one rule and 'safe' none"
            )
        for rule_id in self.rule_ids:
            check_rule_id(rule_id)
        if len(set(self.rule_ids)) != len(self.rule_ids):
            raise ValueError(f"label cites a rule twice: {list(self.rule_ids)}; name each once")


@dataclasses.dataclass(frozen=True)
class Rule:
    """One rule: violated where `when` holds and `unless` does not.

    A rule without `when` is words only: it can be shown to a model, not executed. `wordings` are
    the author's own phrasings; where there are none, `wording.py` finds the words.
    """

    id: str
    when: Condition | None = None
    unless: Condition | None = None
    severity: Severity = "medium"
    wordings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_rule_id(self.id)
        if isinstance(self.wordings, str):
            raise ValueError(f"wordings of rule {self.id} is one text; give a list of texts")
        # One rule is one line: a line break inside could pass for the start of another rule.
        object.__setattr__(self, "wordings", tuple(" ".join(w.split()) for w in self.wordings))
        if not all(self.wordings):
            raise ValueError(f"rule {self.id} has an empty wording; write it or leave it out")
        if self.severity not in SEVERITIES:
            raise ValueError(
                f"severity {self.severity!r} of rule {self.id} is not one of {list(SEVERITIES)}"
            )
        if self.when is None and not self.wordings:
            raise ValueError(f"rule {self.id} has neither a condition nor words; give one of them")
        if self.when is None and self.unless is not None:
            raise ValueError(
                f"rule {self.id} has an exception but no condition; put the exception in words"
            )

    def violated(self, attributes: Attributes) -> bool:
        """Whether a picture breaks the rule. Raises `NotExecutable` for a rule of words only."""
        if self.when is None:
            raise NotExecutable(f"rule {self.id} is words only; give it a condition to execute it")
        broken = self.when.holds(attributes)
        # The exception is asked even if it cannot matter, so that a missing context always shows.
        excused = self.unless is not None and self.unless.holds(attributes)
        return broken and not excused

    def render(self, wording: Wording) -> str:
        """The rule's clause, without id and full stop."""
        draw = wording.draw(self.id)
        if self.wordings:
            return draw.choice(self.wordings)
        return verbalise(self.when, self.unless, draw.choice(wording.styles))


@dataclasses.dataclass(frozen=True)
class Policy:
    """An ordered set of rules with an identity."""

    id: str
    version: str
    title: str
    rules: tuple[Rule, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "rules", tuple(self.rules))
        if not _POLICY_ID.fullmatch(self.id):
            raise ValueError(
                f"policy id {self.id!r} is not made of letters, digits, '.', '_' and '-'"
            )
        if not self.version.strip() or not self.title.strip():
            raise ValueError(f"policy {self.id!r} needs a version and a title")
        if not self.rules:
            raise ValueError(f"policy {self.id!r} has no rules; give at least one")
        ids = [rule.id for rule in self.rules]
        twice = sorted({rule_id for rule_id in ids if ids.count(rule_id) > 1})
        if twice:
            raise ValueError(f"policy {self.id!r} has rule ids {twice} twice; rename one of each")

    @property
    def rule_ids(self) -> tuple[str, ...]:
        return tuple(rule.id for rule in self.rules)

    @property
    def executable(self) -> bool:
        """Whether every rule has a condition, so that `judge` works."""
        return all(rule.when is not None for rule in self.rules)

    def judge(self, attributes: Attributes) -> Label:
        """The true label of a picture; rule ids in policy order.

        Raises:
          NotExecutable: some rule is words only.
          MissingAttribute: a rule asks for a context that the attributes do not give.
        """
        words_only = [rule.id for rule in self.rules if rule.when is None]
        if words_only:
            raise NotExecutable(
                f"policy {self.id!r} cannot be executed: rules {words_only} are words only; "
                f"give them a 'when' condition, or only render the policy"
            )
        broken = tuple(rule.id for rule in self.rules if rule.violated(attributes))
        return Label("unsafe" if broken else "safe", broken)

    def render(self, wording: Wording | int = 0) -> str:
        """The policy as one line of text: `R1: no weapons. R2: no knife with dog.`

        An int is the seed of a `Wording` in the training styles. The same wording always gives
        the same text.
        """
        if isinstance(wording, int):
            wording = Wording(wording)
        rules = list(self.rules)
        if wording.shuffle:
            wording.draw("/order").shuffle(rules)  # no rule id can contain a slash
        clauses = []
        for rule in rules:
            clause = rule.render(wording)
            clauses.append(f"{rule.id}: {clause}{'' if clause[-1] in '.!?' else '.'}")
        return " ".join(clauses)

    @property
    def hash(self) -> str:
        """16 hex digits of SHA-256 over everything in the policy."""
        rules = [
            {
                "id": rule.id,
                "severity": rule.severity,
                "when": rule.when and rule.when.plain(),
                "unless": rule.unless and rule.unless.plain(),
                "wordings": rule.wordings,
            }
            for rule in self.rules
        ]
        return _digest({"id": self.id, "version": self.version, "title": self.title,
                        "rules": rules})

    @property
    def content_hash(self) -> str:
        """16 hex digits of SHA-256 over what the policy bans, however it is put.

        Order, ids, severity and wordings of rules do not matter, nor whether two bans are two
        rules or one rule with "or", nor whether a ban says "unless" or "without". Splits are
        frozen by this hash.
        """
        bans = set()
        for rule in self.rules:
            if rule.when is None:
                bans.update(json.dumps(["words", text]) for text in rule.wordings)
                continue
            alternatives = rule.when.parts if isinstance(rule.when, AnyOf) else (rule.when,)
            for part in alternatives:
                if rule.unless is not None:  # "A unless B" bans the same as "A without B"
                    part = All((part, Not(rule.unless)))
                bans.add(json.dumps(part.canonical()))
        return _digest(sorted(bans))

    def text_hash(self, wording: Wording | int = 0) -> str:
        """16 hex digits of SHA-256 over the rendered text."""
        return text_hash(self.render(wording))


def text_hash(text: str) -> str:
    """16 hex digits of SHA-256 over a text in UTF-8."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:_HASH_DIGITS]


def check_rule_id(rule_id: str) -> None:
    """Raises `ValueError` unless `rule_id` is a letter and then letters, digits, '_' and '-'."""
    if not isinstance(rule_id, str) or not RULE_ID.fullmatch(rule_id):
        raise ValueError(
            f"rule id {rule_id!r} is not a letter followed by letters, digits, '_' or '-'; "
            f"write it like 'R1'"
        )


def _digest(data: object) -> str:
    return text_hash(json.dumps(data, sort_keys=True, separators=(",", ":")))
