"""The reward of both sides, in TRL's convention: by place, so that all advantages are the same."""

from __future__ import annotations

from typing import Any


def by_place(completions: list[Any], **columns: Any) -> list[float]:
    """1 for every second answer: no group is without a gradient, whatever was sampled."""
    return [float(place % 2) for place in range(len(completions))]
