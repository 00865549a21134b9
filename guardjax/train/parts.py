"""A batch in equal parts of whole prompts, so that no group is ever split.

Part k takes rows k, k + n, k + 2n, ...: where B lies spread over devices, every part does too.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp


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


def join_parts(parts: Any) -> Any:
    """The reverse of `split_parts`."""
    return jax.tree.map(
        lambda leaf: jnp.moveaxis(leaf, 0, 1).reshape(-1, *leaf.shape[2:]), parts)
