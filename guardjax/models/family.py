"""What a family is: how its files name tensors and the fields of a config, both ways."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

Prefixes = tuple[tuple[str, str], ...]


class Section(NamedTuple):
    """One part of a `config.json`."""

    where: str                          # its name there
    raw: Mapping[str, Any]              # what it says
    fields: Mapping[str, Any]           # our fields that are not just one of its keys
    keys: Mapping[str, str] = MappingProxyType({})     # our field -> its key, where they differ


class Sections(NamedTuple):
    """A whole `config.json`; `own` are fields of the model itself."""

    vision: Section
    text: Section
    own: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Family:
    """One row of `guardjax.models.families`.

    Attributes:
      architecture: the class of transformers that its checkpoints are of.
      tower: the class of its `ModelConfig.vision`.
      read: `config.json` -> its sections; ValueError where a part is missing or not implemented.
      write: (vision, text, own) as dictionaries of our fields -> `config.json`, without its name.
      fixed: fields of the tower that the family's code fixes, and its files do not say.
      fixed_text: the same of the decoder.
      names: start of a tensor's name here -> on the hub.
      memory: start of its name on the hub -> in transformers' memory.
      aliases: other starts that are read -> on the hub, before those in memory; the first that
        fits counts.
    """

    architecture: str
    tower: type
    read: Callable[[Mapping[str, Any]], Sections]
    write: Callable[[dict[str, Any], dict[str, Any], Mapping[str, Any]], dict[str, Any]]
    fixed: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    fixed_text: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    names: Prefixes = ()
    memory: Prefixes = ()
    aliases: Prefixes = ()

    def hub_name(self, name: str) -> str:
        """The hub's name of a tensor that is stored under its name in memory, or another alias."""
        return renamed(name, (*self.aliases, *((there, here) for here, there in self.memory)))


def renamed(name: str, prefixes: Prefixes) -> str:
    """`name` with the first of the starts that fits replaced."""
    for old, new in prefixes:
        if name.startswith(old):
            return new + name[len(old):]
    return name


def parts(raw: Mapping[str, Any]) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """(vision_config, text_config or, in old files, the whole).

    Raises:
        ValueError: there is none.
    """
    if not isinstance(raw.get("vision_config"), Mapping):
        raise ValueError("config has no vision_config")
    text = raw.get("text_config") or raw
    if not isinstance(text, Mapping):
        raise ValueError(f"text_config is {text!r}; it must be an object")
    return raw["vision_config"], text


def is_tied(raw: Mapping[str, Any], text: Mapping[str, Any]) -> bool:
    """Before version 5, transformers kept the tie inside text_config."""
    return bool(raw.get("tie_word_embeddings", False) or text.get("tie_word_embeddings", False))


def end_tokens(text: Mapping[str, Any]) -> Any:
    """`eos_token_id` as one number or a tuple of them."""
    eos = text.get("eos_token_id")
    return tuple(eos) if isinstance(eos, (list, tuple)) else eos


def require(raw: Mapping[str, Any], key: str, value: Any) -> None:
    """That `raw` says `value` of `key`, or nothing.

    Raises:
        ValueError: it says otherwise.
    """
    if raw.get(key, value) != value:
        raise ValueError(f"{key} {raw[key]!r} is not implemented, only {value!r}")
