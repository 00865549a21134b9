"""A batch in equal parts of whole prompts, so that no group is ever split.

Part k takes rows k, k + n, k + 2n, ...: where B lies spread over devices, every part does too.
Where prompts branch from trunks a row is a trunk with all its prompts, which stay together.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from guardjax.types import PromptBatch


def split_parts(batch: Any, num: int) -> Any:
    """Leaves [B, ...] as [num, B / num, ...].

    Raises:
      ValueError: B, of any leaf, does not divide by `num`.
    """
    def split(leaf: Any) -> jax.Array:
        if leaf.shape[0] % num:
            raise ValueError(f"{leaf.shape[0]} prompts do not divide into {num} parts")
        return jnp.moveaxis(leaf.reshape(-1, num, *leaf.shape[1:]), 1, 0)
    return jax.tree.map(split, batch)


def by_trunk(arrays: Mapping[str, Any], prompts: PromptBatch) -> dict[str, Any]:
    """Arrays [B, ...] as [I, M, ...] where prompts branch, so that a part has whole trunks."""
    if prompts.trunk is None:
        return dict(arrays)
    return {name: array.reshape(*prompts.lead, *array.shape[1:]) for name, array in arrays.items()}


def by_prompt(arrays: Mapping[str, Any], prompts: PromptBatch) -> dict[str, Any]:
    """The reverse of `by_trunk`."""
    if prompts.trunk is None:
        return dict(arrays)
    return {name: array.reshape(prompts.size, *array.shape[2:]) for name, array in arrays.items()}


def join_parts(parts: Any) -> Any:
    """The reverse of `split_parts`."""
    return jax.tree.map(
        lambda leaf: jnp.moveaxis(leaf, 0, 1).reshape(-1, *leaf.shape[2:]), parts)
