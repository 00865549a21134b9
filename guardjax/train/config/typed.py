"""Frozen dataclasses from nested mappings: strict about keys and types, canonical as text.

Knows nothing of any particular schema. Field types may be `bool`, `int`, `float`, `str`,
`Literal[...]`, `tuple[X, ...]`, `Mapping[str, X]` and dataclasses of these.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import difflib
import hashlib
import json
import math
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

T = TypeVar("T")


class ConfigError(ValueError):
    """A config that does not fit its schema; the message names the key and what is allowed."""


def require(condition: bool, message: str) -> None:
    """For checks in `__post_init__`; `build` adds the key to the message.

    Raises:
      ValueError: `message`, where the condition does not hold.
    """
    if not condition:
        raise ValueError(message)


def unknown_name(what: str, name: str, valid: Iterable[str]) -> str:
    """Returns a message that names the nearest valid name and all of them."""
    valid = sorted(valid)
    close = difflib.get_close_matches(name, valid, n=1, cutoff=0.5)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return f"unknown {what} {name!r}.{hint} Valid: {', '.join(valid)}"


def to_tree(config: Any) -> dict[str, Any]:
    """Returns plain nested dicts, tuples and scalars from a `ConfigDict` or a mapping."""
    if hasattr(config, "to_dict"):      # a ConfigDict resolves its references by this
        config = config.to_dict()
    if not isinstance(config, Mapping):
        raise ConfigError(f"a config must be a mapping, got {type(config).__name__}")
    return {key: _plain(value) for key, value in config.items()}


def build(cls: type[T], tree: Mapping[str, Any], path: str = "") -> T:
    """Returns `cls(**tree)` with nested dataclasses built and every value checked.

    Raises:
      ConfigError: naming the full key, for unknown and missing keys, wrong types, and whatever
        `cls.__post_init__` refuses.
    """
    fields = {field.name: field for field in dataclasses.fields(cls)}
    for key in tree:
        if key not in fields:
            raise ConfigError(unknown_name("config key", _join(path, str(key)),
                                           (_join(path, name) for name in fields)))
    missing = [_join(path, name) for name, field in fields.items() if name not in tree
               and field.default is dataclasses.MISSING
               and field.default_factory is dataclasses.MISSING]
    if missing:
        raise ConfigError(f"missing config key(s): {', '.join(missing)}")
    hints = typing.get_type_hints(cls)
    values = {key: _check(hints[key], value, _join(path, key)) for key, value in tree.items()}
    try:
        return cls(**values)
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"{path + ': ' if path else ''}{error}") from error


def apply_override(cls: type, tree: Mapping[str, Any], override: str) -> dict[str, Any]:
    """Returns `tree` with one `key.path=value` set, the value parsed by its type in `cls`.

    Raises:
      ConfigError: for a missing `=`, a path that is not in the schema, an index beyond a list,
        or a value that does not parse.
    """
    text = override.removeprefix("--").removeprefix("config.")
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise ConfigError(f"an override looks like key.path=value, got {override!r}")
    return _set(cls, tree, key.split("."), value, "")


def to_text(config: Any) -> str:
    """Returns one `key.path: value` line a leaf, in schema order, values as JSON."""
    return "".join(f"{key}: {value}\n" for key, value in _leaves(config, ""))


def from_text(cls: type[T], text: str) -> T:
    """Returns the config that `to_text` wrote; keys that are not there have their defaults.

    Raises:
      ConfigError: a line that is none of `to_text`, or as `build`.
    """
    tree: dict[str, Any] = {}
    for line in text.splitlines():
        key, colon, value = line.partition(": ")
        *path, name = key.split(".")
        node = tree
        for part in path:
            node = node.setdefault(part, {})
        try:
            if not colon:
                raise ValueError("there is no colon")
            node[name] = json.loads(value)
        except ValueError as error:
            raise ConfigError(f"{line!r} is not 'key: value' with a value as JSON: {error}"
                              ) from error
    return build(cls, _listed(tree))


def _listed(tree: Any) -> Any:
    """Mappings whose keys are the numbers from 0 as tuples, at any depth."""
    if not isinstance(tree, dict):
        return tree
    found = {key: _listed(value) for key, value in tree.items()}
    numbers = [str(i) for i in range(len(found))]
    return tuple(found.values()) if found and list(found) == numbers else found


def digest(config: Any) -> str:
    """Returns 16 hex digits that change whenever `to_text` does."""
    return hashlib.sha256(to_text(config).encode()).hexdigest()[:16]


def _plain(value: Any) -> Any:
    if hasattr(value, "to_dict"):
        value = value.to_dict()
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return tuple(_plain(item) for item in value)
    return value


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _describe(hint: Any) -> str:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return "one of " + ", ".join(map(repr, args))
    if origin is tuple:
        return f"a list of {_describe(args[0])}"
    if origin is collections.abc.Mapping:
        return f"a mapping from text to {_describe(args[1])}"
    if dataclasses.is_dataclass(hint):
        return f"a mapping ({hint.__name__})"
    return {bool: "true or false", int: "int", float: "float", str: "text"}.get(hint, str(hint))


def _check(hint: Any, value: Any, path: str) -> Any:
    """Returns `value` as `hint` wants it (an int may stand for a float), or raises."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
        return build(hint, value, path)
    if origin is collections.abc.Mapping and isinstance(value, Mapping):
        if all(isinstance(key, str) for key in value):
            return {key: _check(args[1], item, _join(path, key)) for key, item in value.items()}
    elif origin is tuple and isinstance(value, (list, tuple)):
        return tuple(_check(args[0], item, _join(path, str(i))) for i, item in enumerate(value))
    elif origin is typing.Literal and value in args and isinstance(value, type(args[0])):
        return value
    elif hint is float and type(value) in (int, float) and math.isfinite(value):
        return float(value)
    elif hint in (bool, int, str) and type(value) is hint:   # a bool is no int here
        return value
    raise ConfigError(
        f"{path} must be {_describe(hint)}, got {value!r} ({type(value).__name__})")


def _set(hint: Any, value: Any, keys: Sequence[str], text: str, path: str) -> Any:
    """Returns `value` with the leaf under `keys` replaced by the parsed `text`."""
    if not keys:
        return _parse(hint, text, path)
    key, rest = keys[0], keys[1:]
    here = _join(path, key)
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        hints = typing.get_type_hints(hint)
        if key not in hints:
            raise ConfigError(unknown_name("config key", here, (_join(path, k) for k in hints)))
        field = next(field for field in dataclasses.fields(hint) if field.name == key)
        tree = dict(value)
        tree[key] = _set(hints[key], tree.get(key, _default(field)), rest, text, here)
        return tree
    if origin is tuple:
        if not key.isdigit() or int(key) >= len(value):
            raise ConfigError(f"{here}: there is no entry {key!r}, {path} has {len(value)} "
                              f"(0 to {len(value) - 1})")
        items = list(value)
        items[int(key)] = _set(args[0], items[int(key)], rest, text, here)
        return tuple(items)
    if origin is collections.abc.Mapping:
        return {**value, key: _set(args[1], value.get(key), rest, text, here)}
    raise ConfigError(f"{path} is {_describe(hint)}: there is nothing below it, got {here!r}")


def _default(field: dataclasses.Field) -> Any:
    """Returns the default as a tree, so that an override of one part keeps the other parts."""
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    if dataclasses.is_dataclass(field.default):
        return {}                       # its own defaults are filled in by `build`
    return () if field.default is dataclasses.MISSING else field.default


def _parse(hint: Any, text: str, path: str) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is str or origin is typing.Literal:
        return text
    if hint is bool and text.lower() in ("true", "false"):
        return text.lower() == "true"
    if origin is tuple and not text.startswith("["):
        parts = [part for part in text.split(",") if part]
        return tuple(_parse(args[0], part, _join(path, str(i))) for i, part in enumerate(parts))
    try:
        if hint in (int, float):
            return hint(text)
        if hint is not bool:
            return _plain(json.loads(text))
    except ValueError:
        pass
    raise ConfigError(f"{path} must be {_describe(hint)}, got {text!r}")


def _leaves(value: Any, path: str) -> Iterable[tuple[str, str]]:
    if dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from _leaves(getattr(value, field.name), _join(path, field.name))
    elif isinstance(value, Mapping) and value:
        for key in sorted(value):
            yield from _leaves(value[key], _join(path, key))
    elif isinstance(value, tuple) and value and dataclasses.is_dataclass(value[0]):
        for i, item in enumerate(value):
            yield from _leaves(item, _join(path, str(i)))
    else:
        yield path, json.dumps(dict(value) if isinstance(value, Mapping) else value,
                               ensure_ascii=False)
