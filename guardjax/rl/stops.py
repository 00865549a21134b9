"""Where an answer ends: its last tokens against the sequences that end one."""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp

from guardjax.types import Array

Stops = Sequence[Sequence[int]]

# Stands for "no token yet"; no id of a vocabulary.
_NOTHING = -1


def no_tokens(lead: Sequence[int], stops: Stops) -> Array:
    """Lead + [K] int32, the last K tokens of answers that have none; K of the longest stop."""
    return jnp.full((*lead, max(map(len, stops))), _NOTHING, jnp.int32)


def push(recent: Array, token: Array) -> Array:
    """`recent` lead + [K] with `token` lead as the newest."""
    return jnp.concatenate([recent[..., 1:], token[..., None]], axis=-1)


def ends_with(recent: Array, stops: Stops) -> Array:
    """Lead bool: whether the last tokens are one of `stops`."""
    found = [jnp.all(recent[..., -len(stop):] == jnp.array(stop, jnp.int32), axis=-1)
             for stop in stops]
    return jnp.any(jnp.stack(found), axis=0)
