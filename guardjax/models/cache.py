"""The key/value cache: an immutable list of segments, the last of which may still be growing.

Keys lie as [K, d, S] and values as [K, S, d]: so a step of decoding multiplies both as they lie,
where keys [K, S, d] would be transposed anew at every step.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from guardjax.models.config import ModelConfig

Array = jax.Array | np.ndarray
# One array per layer; one for all with a leading axis of layers under `ModelConfig.scan_layers`.
LayerArrays = tuple[Array, ...] | Array


@flax.struct.dataclass
class ClosedSegment:
    """A finished segment's rotated keys and its values."""

    keys: LayerArrays            # each lead + [K, d, S]
    values: LayerArrays          # each lead + [K, S, d]
    mask: Array                  # lead + [S] bool


@flax.struct.dataclass
class OpenSegment:
    """A segment being decoded: fixed buffers of which the first `length` tokens are written.

    Of lead + [K], buffers have only the axes longer than 1: XLA drops the others before a product,
    and would write a second copy of the buffer to do so. Slots keep them.

    Slots (lead [S]) have a length each. Those of a slot that stands idle go beyond the buffer's
    end; what is written there falls on its last token and is masked.
    """

    keys: LayerArrays            # each lead + [K, d, T_max], see above
    values: LayerArrays          # each lead + [K, T_max, d], see above
    mask: Array                  # lead + [T_max] bool, False beyond `length`
    length: Array                # [] int32, or [S] of slots


@flax.struct.dataclass
class KVCache:
    """What a forward pass may look back to."""

    closed: tuple[ClosedSegment, ...] = ()
    open: OpenSegment | None = None


def open_buffer(cfg: ModelConfig, cache: KVCache, lead: Sequence[int], max_tokens: int) -> KVCache:
    """Adds an empty buffer for a segment with leading axes `lead`, in the type of computation.

    Raises:
        ValueError: the cache already has an open buffer.
    """
    if cache.open is not None:
        raise ValueError("the cache already has an open buffer")
    outer = [n for n in (*lead, cfg.text.num_key_value_heads) if n > 1]
    return cache.replace(open=OpenSegment(
        *_buffers(cfg, outer, max_tokens), mask=jnp.zeros((*lead, max_tokens), bool),
        length=jnp.zeros((), jnp.int32)))


def open_slots(cfg: ModelConfig, cache: KVCache, rows: Array, max_tokens: int) -> KVCache:
    """A cache of S slots: each sees what its row of `cache` holds, and has an empty buffer.

    Args:
        cfg: static.
        cache: finished segments, without a buffer. Rows are those of the last; an earlier one that
            has fewer is shared by as many rows in turn.
        rows: [S] int32.
        max_tokens: room of each buffer.

    Raises:
        ValueError: the cache already has an open buffer.
    """
    if cache.open is not None:
        raise ValueError("the cache already has an open buffer")
    slots = cache.replace(open=OpenSegment(
        *_buffers(cfg, (*rows.shape, cfg.text.num_key_value_heads), max_tokens),
        mask=jnp.zeros((*rows.shape, max_tokens), bool), length=jnp.zeros(rows.shape, jnp.int32)))
    return refill_slots(slots, cache, rows, jnp.ones(rows.shape, bool))


def refill_slots(slots: KVCache, cache: KVCache, rows: Array, fresh: Array) -> KVCache:
    """Gathers rows [S] of the finished segments of `cache`; empties the buffers of `fresh` [S]."""
    num_rows = math.prod(cache.closed[-1].mask.shape[:-1])

    def gathered(segment: ClosedSegment) -> ClosedSegment:
        lead = segment.mask.shape[:-1]
        own = rows // (num_rows // math.prod(lead))

        def take(array: Array, inner: int) -> jax.Array:
            """Of an array [layers or nothing] + lead + `inner` axes."""
            outer = array.shape[:array.ndim - inner - len(lead)]
            flat = array.reshape(*outer, -1, *array.shape[array.ndim - inner:])
            return jnp.take(flat, own, axis=len(outer), mode="clip")

        stored = lambda arrays: jax.tree.map(lambda array: take(array, 3), arrays)
        return ClosedSegment(stored(segment.keys), stored(segment.values), take(segment.mask, 1))

    buffer = slots.open
    buffer = buffer.replace(mask=buffer.mask & ~fresh[:, None],
                            length=jnp.where(fresh, 0, buffer.length))
    return KVCache(tuple(gathered(segment) for segment in cache.closed), buffer)


def put(buffer: Array, new: Array, start: Array, *, axis: int, rows: int) -> jax.Array:
    """`buffer` with `new` from `start` on along `axis`; of slots, which lie along `rows`, each from
    its own on. Both axes are negative, as layers may be stacked in front."""
    write = lambda buffer, new, start, axis: jax.lax.dynamic_update_slice_in_dim(
        buffer, new.astype(buffer.dtype), start, axis=axis)
    if start.ndim == 0:
        return write(buffer, new, start, axis)
    by_slot = jax.vmap(lambda *each: write(*each, axis), (rows, rows, 0), rows)
    return by_slot(buffer, new, start)


def _buffers(cfg: ModelConfig, outer: Sequence[int],
             max_tokens: int) -> tuple[LayerArrays, LayerArrays]:
    size = cfg.text.head_dim
    return _zeros(cfg, (*outer, size, max_tokens)), _zeros(cfg, (*outer, max_tokens, size))


def _zeros(cfg: ModelConfig, shape: Sequence[int]) -> LayerArrays:
    """Unrolled, each layer's is updated in place, where one stacked array would be copied."""
    if cfg.scan_layers:
        return jnp.zeros((cfg.text.num_hidden_layers, *shape), cfg.dtype)
    return tuple(jnp.zeros(shape, cfg.dtype) for _ in range(cfg.text.num_hidden_layers))
