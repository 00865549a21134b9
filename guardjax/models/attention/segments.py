"""Attention of one segment to the segments before it and to itself, without repeating any of them.

Queries have leading axes `lead`; a part of the keys may have only the first few of these. The
query axes that a part lacks become query *rows* of one matrix product, so a prompt's keys [B, ...]
serve all G answers [B, G, ...] as they lie. The parts are joined by one softmax: a common maximum
and a common sum, which is the softmax over the concatenated keys without concatenating anything.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array | np.ndarray

# Finite, so that a row whose keys are all masked (padding) is no NaN on its way to becoming 0.
_MASKED = -1e30


class KeyPart(NamedTuple):
    """Keys that a query segment may see. `lead` is a prefix of the query's leading axes."""

    keys: Array      # lead + [K, S, d]
    values: Array    # lead + [K, S, d]
    mask: Array      # lead + [T or 1, S] bool, True keeps


def segment_attention(queries: Array, parts: Sequence[KeyPart], *, scale: float) -> jax.Array:
    """Softmax attention over all parts together.

    Args:
        queries: lead + [K, R, T, d]; R query heads share each of the K key heads.
        parts: what can be seen; each part's leading axes are a prefix of `lead`.
        scale: factor of the scores.

    Returns:
        lead + [K, R, T, d] in the type of the values, 0 where no key is seen; scores and softmax
        are float32.

    Raises:
        ValueError: a part whose leading axes are no prefix of the query's.
    """
    lead = queries.shape[:-4]
    for part in parts:
        if part.keys.shape[:-3] != lead[:part.keys.ndim - 3]:
            raise ValueError(f"keys with leading axes {part.keys.shape[:-3]} cannot be shared by "
                             f"queries with leading axes {lead}")
    scores = [_scores(queries, part, scale) for part in parts]
    # The maximum only keeps exp() in range: neither the result nor the gradient depends on it.
    top = jax.lax.stop_gradient(functools.reduce(jnp.maximum, [
        _to_query_axes(score.max(-1), len(lead), part.keys.ndim - 3)
        for score, part in zip(scores, parts)]))
    outputs, sums = [], []
    for score, part in zip(scores, parts):
        shared = part.keys.ndim - 3
        weights = jnp.exp(score - _to_part_axes(top, len(lead), shared)[..., None])
        sums.append(_to_query_axes(weights.sum(-1), len(lead), shared))
        outputs.append(_to_query_axes(_weighted(weights, part.values), len(lead), shared))
    joined = sum(outputs) / sum(sums)[..., None]
    return jnp.where(_sees_a_key(parts, len(lead)), joined, 0).astype(parts[-1].values.dtype)


def _sees_a_key(parts: Sequence[KeyPart], lead: int) -> jax.Array:
    """[...] + [1, 1, T or 1, 1] bool, against the result. Asked of the masks, not of `top`: another
    reader of the scores would change how XLA fuses them, and with it the last bits."""
    rows = []
    for part in parts:
        row, shared = part.mask.any(-1), part.keys.ndim - 3
        rows.append(row.reshape(*row.shape[:-1], *[1] * (lead - shared + 2), row.shape[-1], 1))
    return functools.reduce(jnp.logical_or, rows)


def _scores(queries: Array, part: KeyPart, scale: float) -> jax.Array:
    """Masked scores in the part's axes: part lead + [K] + remaining lead + [R, T, S], float32."""
    shared = part.keys.ndim - 3
    rows = _to_part_axes(queries, queries.ndim - 4, shared)
    flat = rows.reshape(*part.keys.shape[:-2], -1, rows.shape[-1])
    scores = jnp.matmul(flat, part.keys.swapaxes(-1, -2), preferred_element_type=jnp.float32)
    scores = scores.reshape(*rows.shape[:-1], -1) * scale
    mask = part.mask
    for _ in range(scores.ndim - mask.ndim):
        mask = jnp.expand_dims(mask, shared)
    return jnp.where(mask, scores, _MASKED)


def _weighted(weights: Array, values: Array) -> jax.Array:
    """Sum of the values: part lead + [K] + remaining lead + [R, T, d], float32."""
    flat = weights.reshape(*values.shape[:-2], -1, values.shape[-2]).astype(values.dtype)
    out = jnp.matmul(flat, values, preferred_element_type=jnp.float32)
    return out.reshape(*weights.shape[:-1], values.shape[-1])


def _to_part_axes(x: Array, lead: int, shared: int) -> jax.Array:
    """Moves the key-head axis of lead + [K, ...] before the leading axes that a part lacks."""
    return x if lead == shared else jnp.moveaxis(x, lead, shared)


def _to_query_axes(x: Array, lead: int, shared: int) -> jax.Array:
    """The inverse of `_to_part_axes`."""
    return x if lead == shared else jnp.moveaxis(x, shared, lead)
