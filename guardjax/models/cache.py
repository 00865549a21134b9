"""The key/value cache: an immutable list of segments, the last of which may still be growing."""

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

    keys: LayerArrays            # each lead + [K, S, d]
    values: LayerArrays          # each lead + [K, S, d]
    mask: Array                  # lead + [S] bool


@flax.struct.dataclass
class OpenSegment:
    """A segment being decoded: fixed buffers of which the first `length` tokens are written."""

    keys: LayerArrays            # each lead + [K, T_max, d]
    values: LayerArrays          # each lead + [K, T_max, d]
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
    shape = (*lead, cfg.text.num_key_value_heads, max_tokens, cfg.text.head_dim)
    return cache.replace(open=OpenSegment(
        keys=_zeros(cfg, shape), values=_zeros(cfg, shape),
        mask=jnp.zeros((*lead, max_tokens), bool), length=jnp.zeros((), jnp.int32)))


def _zeros(cfg: ModelConfig, shape: Sequence[int]) -> LayerArrays:
    """Unrolled, each layer's is updated in place, where one stacked array would be copied."""
    if cfg.scan_layers:
        return jnp.zeros((cfg.text.num_hidden_layers, *shape), cfg.dtype)
    return tuple(jnp.zeros(shape, cfg.dtype) for _ in range(cfg.text.num_hidden_layers))
