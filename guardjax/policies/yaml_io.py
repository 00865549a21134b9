"""Policies in YAML, read strictly: every error names the file, the line and the key.

    schema: 1
    id: garden-centre
    version: "1"
    title: What a garden centre shows
    rules:
      - id: R1
        severity: high
        when: {all: [knife, {is: {place: garden}}]}
        unless: {count: {name: tools, at_least: 2}}
        wordings: [no knife in garden unless there are two or more tools]
      - id: R2
        text: nothing that a child would be afraid of

A condition is a name (`knife`), or a mapping with one of the keys `count`, `is`, `all`, `any`,
`not`, `other_than`. A rule of words only has `text` (or `wordings`) and no `when`.

The reader walks PyYAML's node tree, because loaded Python values have forgotten their lines.
"""

from __future__ import annotations

import difflib
import os
import pathlib
from collections.abc import Callable, Collection
from typing import Any

import yaml

from guardjax.policies.condition import All, AnyOf, Condition, Has, Is, Not, OtherThan
from guardjax.policies.policy import Policy, Rule

SCHEMA = 1
_MAX_CHARACTERS = 200_000  # far beyond any context; keeps a wrong file from being parsed for hours
_MAX_DEPTH = 50  # collections within collections; a policy of ours has five
_CONDITIONS = ("count", "is", "all", "any", "not", "other_than")


class PolicyError(ValueError):
    """A policy file that cannot be read; `line` counts from 1, `key` is a path like rules[0].id."""

    def __init__(self, source: str, line: int | None, key: str | None, problem: str):
        self.source, self.line, self.key, self.problem = source, line, key, problem
        place = source if line is None else f"{source}:{line}"
        super().__init__(": ".join(part for part in (place, key, problem) if part))


def load_policy(path: str | os.PathLike[str]) -> Policy:
    """Reads one policy file. Raises `PolicyError` for everything that can be wrong with it."""
    source = os.fspath(path)
    try:
        text = pathlib.Path(path).read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise PolicyError(source, None, None, "no such file; check the path") from None
    except UnicodeDecodeError as error:
        raise PolicyError(
            source, None, None, f"byte {error.start} is not UTF-8; save the file as UTF-8"
        ) from None
    except OSError as error:
        raise PolicyError(
            source, None, None, f"cannot be read ({error.strerror}); give a readable file"
        ) from None
    return parse_policy(text, source)


def parse_policy(text: str, source: str = "<policy>") -> Policy:
    """Reads a policy from YAML text; `source` names it in errors. Raises `PolicyError`."""
    if len(text) > _MAX_CHARACTERS:
        raise PolicyError(
            source, None, None,
            f"{len(text)} characters is over the limit of {_MAX_CHARACTERS}; split the policy",
        )
    try:
        # Aliases can make a small text unfold without end, and a policy has no use for them.
        # Deep nesting would exhaust the stack of the composer and of the reader below.
        depth = 0
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if depth > _MAX_DEPTH:
                raise PolicyError(
                    source, event.start_mark.line + 1, None,
                    f"is nested more than {_MAX_DEPTH} levels deep; flatten it",
                )
            if isinstance(event, yaml.AliasEvent):
                raise PolicyError(
                    source, event.start_mark.line + 1, None,
                    f"alias *{event.anchor} is not supported; write the value out",
                )
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        if root is None:
            raise PolicyError(source, None, None, "the file is empty; a policy needs at least "
                              "schema, id, version, title and rules")
        return _Reader(source).policy(root)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise PolicyError(
            source, mark and mark.line + 1, None, f"not valid YAML: {error.problem}"
        ) from None
    except yaml.YAMLError as error:
        raise PolicyError(
            source, None, None, f"not valid YAML: {str(error).splitlines()[0]}"
        ) from None


def dump_policy(policy: Policy) -> str:
    """The policy as YAML text; `parse_policy` reads an equal policy back."""
    rules = []
    for rule in policy.rules:
        out: dict[str, Any] = {"id": rule.id, "severity": rule.severity}
        if rule.when is None and len(rule.wordings) == 1:
            out["text"] = rule.wordings[0]
        else:
            if rule.when is not None:
                out["when"] = rule.when.plain()
            if rule.unless is not None:
                out["unless"] = rule.unless.plain()
            if rule.wordings:
                out["wordings"] = list(rule.wordings)
        rules.append(out)
    data = {"schema": SCHEMA, "id": policy.id, "version": policy.version, "title": policy.title,
            "rules": rules}
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=100)


def save_policy(policy: Policy, path: str | os.PathLike[str]) -> None:
    """Writes one policy file, all or nothing: a full disk leaves no half policy behind."""
    path = pathlib.Path(path)
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_text(dump_policy(policy), encoding="utf-8")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


class _Reader:
    """Turns nodes into a policy; knows the source, so that every error can name its place."""

    def __init__(self, source: str):
        self._source = source

    def fail(self, node: yaml.Node, key: str, problem: str) -> PolicyError:
        return PolicyError(self._source, node.start_mark.line + 1, key, problem)

    def build(self, node: yaml.Node, key: str, make: Callable[[], Any]) -> Any:
        """Runs a constructor; its complaint gets this node's line and key."""
        try:
            return make()
        except PolicyError:
            raise
        except ValueError as error:
            raise self.fail(node, key, str(error)) from None

    def policy(self, root: yaml.Node) -> Policy:
        fields = self.mapping(root, "", ("schema", "id", "version", "title", "rules"))
        for name in ("schema", "id", "version", "title", "rules"):
            if name not in fields:
                raise self.fail(root, name, "is missing; add it at the top level")
        schema = self.integer(fields["schema"], "schema")
        if schema != SCHEMA:
            raise self.fail(fields["schema"], "schema",
                            f"version {schema} is not supported; this release reads {SCHEMA}")
        nodes = self.sequence(fields["rules"], "rules")
        rules, lines = [], {}
        for index, node in enumerate(nodes):
            rule = self.rule(node, f"rules[{index}]")
            if rule.id in lines:
                raise self.fail(node, f"rules[{index}].id",
                                f"{rule.id!r} is already the rule of line {lines[rule.id]}; "
                                f"rename one of them")
            lines[rule.id] = node.start_mark.line + 1
            rules.append(rule)
        name, version, title = (
            # A version such as 1.10 is taken as written, not as the number 1.1.
            self.text(fields[key], key, numbers=key == "version")
            for key in ("id", "version", "title")
        )
        return self.build(fields["id"], "id", lambda: Policy(name, version, title, tuple(rules)))

    def rule(self, node: yaml.Node, key: str) -> Rule:
        fields = self.mapping(node, key, ("id", "severity", "when", "unless", "wordings", "text"))
        if "id" not in fields:
            raise self.fail(node, f"{key}.id", "is missing; give the rule an id such as R1")
        given: dict[str, Any] = {"id": self.text(fields["id"], f"{key}.id")}
        if "severity" in fields:
            given["severity"] = self.text(fields["severity"], f"{key}.severity")
        for name in ("when", "unless"):
            if name in fields:
                given[name] = self.condition(fields[name], f"{key}.{name}")
        if "wordings" in fields:
            parts = self.sequence(fields["wordings"], f"{key}.wordings")
            given["wordings"] = tuple(
                self.text(part, f"{key}.wordings[{i}]") for i, part in enumerate(parts)
            )
        if "text" in fields:
            for other in ("when", "unless", "wordings"):
                if other in fields:
                    raise self.fail(fields["text"], f"{key}.text",
                                    f"cannot stand beside {other!r}; put the words in 'wordings'")
            given["wordings"] = (self.text(fields["text"], f"{key}.text"),)
        return self.build(node, key, lambda: Rule(**given))

    def condition(self, node: yaml.Node, key: str) -> Condition:
        if isinstance(node, yaml.ScalarNode):
            name = self.text(node, key)
            return self.build(node, key, lambda: Has(name))
        if isinstance(node, yaml.SequenceNode):
            raise self.fail(node, key, "is a list; say 'all: [...]' or 'any: [...]'")
        fields = self.mapping(node, key, _CONDITIONS)
        if len(fields) != 1:
            raise self.fail(node, key, f"has {len(fields)} keys {sorted(fields)}; a condition has "
                                       f"one of {list(_CONDITIONS)} (join several with 'all')")
        (kind, value), = fields.items()
        inner = f"{key}.{kind}"
        if kind == "count":
            return self.count(value, inner)
        if kind == "is":
            pairs = self.mapping(value, inner, None)
            if len(pairs) != 1:
                raise self.fail(value, inner, f"has {len(pairs)} contexts; give one, such as "
                                              f"{{place: garden}} (join several with 'all')")
            (name, wanted), = pairs.items()
            wanted_text = self.text(wanted, f"{inner}.{name}")
            return self.build(value, inner, lambda: Is(name, wanted_text))
        if kind == "not":
            part = self.condition(value, inner)
            return self.build(value, inner, lambda: Not(part))
        nodes = self.sequence(value, inner)
        if kind == "other_than":
            names = tuple(self.text(part, f"{inner}[{i}]") for i, part in enumerate(nodes))
            return self.build(value, inner, lambda: OtherThan(names))
        parts = tuple(self.condition(part, f"{inner}[{i}]") for i, part in enumerate(nodes))
        return self.build(value, inner, lambda: (All if kind == "all" else AnyOf)(parts))

    def count(self, node: yaml.Node, key: str) -> Has:
        fields = self.mapping(node, key, ("name", "at_least", "at_most"))
        if "name" not in fields or len(fields) < 2:
            raise self.fail(node, key, "needs a name and at_least or at_most, such as "
                                       "{name: knife, at_least: 2}")
        name = self.text(fields["name"], f"{key}.name")
        limits = {k: self.integer(v, f"{key}.{k}") for k, v in fields.items() if k != "name"}
        limits.setdefault("at_least", 0)  # "at most 2" includes none
        return self.build(node, key, lambda: Has(name, **limits))

    def mapping(
        self, node: yaml.Node, key: str, allowed: Collection[str] | None
    ) -> dict[str, yaml.Node]:
        """The fields of a mapping node; keys must be text, known and there once."""
        if not isinstance(node, yaml.MappingNode) or _tag(node) != "map":
            raise self.fail(node, key, f"is {_kind(node)}, not a mapping of keys to values")
        fields: dict[str, yaml.Node] = {}
        for name_node, value in node.value:
            name = self.text(name_node, f"{key}.<key>" if key else "<key>")
            path = f"{key}.{name}" if key else name
            if allowed is not None and name not in allowed:
                close = difflib.get_close_matches(name, allowed, n=1)
                hint = f"did you mean {close[0]!r}?" if close else f"known: {list(allowed)}"
                raise self.fail(name_node, path, f"is not a known key; {hint}")
            if name in fields:
                raise self.fail(name_node, path, "is given twice; keep one")
            fields[name] = value
        return fields

    def sequence(self, node: yaml.Node, key: str) -> list[yaml.Node]:
        if not isinstance(node, yaml.SequenceNode) or _tag(node) != "seq":
            raise self.fail(node, key, f"is {_kind(node)}, not a list; write [a, b] or '- a' lines")
        if not node.value:
            raise self.fail(node, key, "is an empty list; give at least one item")
        return node.value

    def text(self, node: yaml.Node, key: str, *, numbers: bool = False) -> str:
        tags = {"str", "int", "float", "timestamp"} if numbers else {"str"}
        if not isinstance(node, yaml.ScalarNode) or _tag(node) not in tags:
            shown = f" {node.value!r}" if isinstance(node, yaml.ScalarNode) else ""
            raise self.fail(node, key, f"is {_kind(node)}{shown}, not text; write it in quotes")
        if not node.value.strip():
            raise self.fail(node, key, "is blank; write some text")
        return node.value

    def integer(self, node: yaml.Node, key: str) -> int:
        if not isinstance(node, yaml.ScalarNode) or not node.value.isdecimal():
            shown = f" {node.value!r}" if isinstance(node, yaml.ScalarNode) else ""
            raise self.fail(node, key, f"is {_kind(node)}{shown}, not a whole number such as 2")
        if _tag(node) != "int":
            raise self.fail(node, key, f"is {_kind(node)}; write the number without quotes")
        return int(node.value)


def _tag(node: yaml.Node) -> str:
    return node.tag.rpartition(":")[2]


def _kind(node: yaml.Node) -> str:
    names = {"map": "a mapping", "seq": "a list", "str": "text", "int": "a whole number",
             "float": "a number", "bool": "true or false", "null": "nothing",
             "timestamp": "a date"}
    return names.get(_tag(node), f"a {node.tag} value")
