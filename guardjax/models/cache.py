"""The key/value cache: an immutable list of segments, the last of which may still be growing.

Keys lie as [K, d, S] and values as [K, S, d]: so a step of decoding multiplies both as they lie,
where keys [K, S, d] would be transposed anew at every step.
"""

from __future__ import annotations

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
    and would write a second copy of the buffer to do so.
    """

    keys: LayerArrays            # each lead + [K, d, T_max], see above
    values: LayerArrays          # each lead + [K, T_max, d], see above
    mask: Array                  # lead + [T_max] bool, False beyond `length`
    length: Array                # [] int32


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
    size = cfg.text.head_dim
    outer = [n for n in (*lead, cfg.text.num_key_value_heads) if n > 1]
    return cache.replace(open=OpenSegment(
        keys=_zeros(cfg, (*outer, size, max_tokens)),
        values=_zeros(cfg, (*outer, max_tokens, size)),
        mask=jnp.zeros((*lead, max_tokens), bool), length=jnp.zeros((), jnp.int32)))


def _zeros(cfg: ModelConfig, shape: Sequence[int]) -> LayerArrays:
    """Unrolled, each layer's is updated in place, where one stacked array would be copied."""
    if cfg.scan_layers:
        return jnp.zeros((cfg.text.num_hidden_layers, *shape), cfg.dtype)
    return tuple(jnp.zeros(shape, cfg.dtype) for _ in range(cfg.text.num_hidden_layers))
