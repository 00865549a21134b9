"""When stored results may not be gone on with: the facts that they depend on have changed."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import TypeVar

Facts = TypeVar("Facts")


def changed_pins(there: Facts, now: Facts,
                 names: Mapping[str, str] = MappingProxyType({})) -> dict[str, str]:
    """Which facts differ, and how, in words for people.

    Args:
      there: the facts that results were stored under, a dataclass.
      now: those of this run, of the same class.
      names: what a field is called in messages, where its own name does not do.

    Returns:
      Field -> "NAME 'value' there, 'value' now", in the order of the class; {} where results can
      be gone on with.
    """
    pairs = {field.name: (getattr(there, field.name), getattr(now, field.name))
             for field in dataclasses.fields(now)}
    return {field: f"{names.get(field, field)} {old!r} there, {new!r} now"
            for field, (old, new) in pairs.items() if old != new}
