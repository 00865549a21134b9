"""The decoder over a list of segments: grouped-query attention, M-RoPE, SwiGLU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from guardjax.models.attention import KeyPart, OwnTokens, attend_segments
from guardjax.models.cache import ClosedSegment, KVCache, OpenSegment, put
from guardjax.models.config import Remat, TextConfig
from guardjax.models.layers import GatedMLP, RMSNorm, inverse_frequencies, rotate
from guardjax.models.linear import Linear
from guardjax.models.remat import remat_layer
from guardjax.models.residual import hold, hold_embedded, hold_rows, hold_for_kernel
from guardjax.types import Segment

Array = jax.Array | np.ndarray
Arrays = tuple[jax.Array, ...]
LayerOutput = tuple[Arrays, Arrays, Arrays]


class TextDecoder(nn.Module):
    """Token segments to hidden states after the final norm."""

    cfg: TextConfig
    dtype: str
    attention: str = "xla"     # a back end, see `models.attention`
    scan: bool = False
    remat: Remat = "none"

    def setup(self) -> None:
        cfg = self.cfg
        self.embed_tokens = nn.Embed(cfg.vocab_size, cfg.hidden_size, dtype=self.dtype)
        layer = remat_layer(DecoderLayer, self.remat, scanned=self.scan)
        self.layers = (layer(cfg, self.dtype, self.attention) if self.scan else
                       [layer(cfg, self.dtype, self.attention)
                        for _ in range(cfg.num_hidden_layers)])
        self.norm = RMSNorm(cfg.rms_norm_eps)

    def __call__(self, segments: Sequence[Segment], features: Array | None,
                 cache: KVCache) -> tuple[Arrays, KVCache]:
        """See `guardjax.models.qwen2_5_vl.forward`."""
        hidden = tuple(self._embed(segment, features) for segment in segments)
        if self.scan:
            hidden, cache = self._scanned(hidden, segments, cache)
            return tuple(self.norm(x) for x in hidden), cache
        views = tuple(_view(self.cfg, segment, cache.open) for segment in segments)
        keys, values = [], []
        for index, layer in enumerate(self.layers):
            hidden, new_keys, new_values = layer(hidden, views, _past(self.cfg, cache, index),
                                                 _buffers(cache, index))
            keys.append(new_keys)
            values.append(new_values)
        return tuple(self.norm(x) for x in hidden), _extend(cache, segments, views, keys, values)

    def _scanned(self, hidden: Arrays, segments: Sequence[Segment],
                 cache: KVCache) -> tuple[Arrays, KVCache]:
        """All layers as one loop over their stacked parameters, keys and values.

        An open buffer is to the layers one more segment of the past: what they would write into it
        comes out of the loop, and is written into all of its layers in one place.
        """
        views = tuple(_view(self.cfg, segment, None) for segment in segments)
        past = cache.closed if cache.open is None else (*cache.closed, cache.open)
        masks = tuple(part.mask[..., None, :] for part in past)

        def step(layer: nn.Module, hidden: Arrays, stored: tuple) -> tuple[Arrays, tuple]:
            parts = tuple(_part(self.cfg, *pair, mask) for pair, mask in zip(stored, masks))
            hidden, keys, values = layer(hidden, views, parts, None)
            return hidden, (keys, values)

        loop = nn.scan(step, variable_axes={"params": 0}, split_rngs={"params": True},
                       length=self.cfg.num_hidden_layers)
        hidden, (keys, values) = loop(self.layers, hidden,
                                      tuple((part.keys, part.values) for part in past))
        if cache.open is not None:
            return hidden, cache.replace(open=_written(cache.open, keys[0], values[0],
                                                       segments[0].mask))
        new = tuple(ClosedSegment(k, v, view.mask) for k, v, view in zip(keys, values, views))
        return hidden, cache.replace(closed=cache.closed + new)

    def _embed(self, segment: Segment, features: Array | None) -> jax.Array:
        """lead + [T, D]: the token's embedding, or the image feature that stands in its place."""
        embedded = hold_embedded(self.embed_tokens(segment.tokens))
        if segment.feature_index is None:
            return embedded
        if features is None:
            raise ValueError("a segment has image placeholders but no features were given")
        index = segment.feature_index
        # Leading axes beyond B share the prompt's features.
        flat = jnp.maximum(index, 0).reshape(index.shape[0], -1, 1)
        chosen = jnp.take_along_axis(features, flat, axis=1).reshape(embedded.shape)
        return jnp.where((index >= 0)[..., None], chosen.astype(embedded.dtype), embedded)


class DecoderLayer(nn.Module):
    """Pre-norm attention and MLP; all segments pass through in one call."""

    cfg: TextConfig
    dtype: str
    attention: str = "xla"

    def setup(self) -> None:
        cfg = self.cfg
        self.input_layernorm = RMSNorm(cfg.rms_norm_eps)
        self.self_attn = SelfAttention(cfg, self.dtype, self.attention)
        self.post_attention_layernorm = RMSNorm(cfg.rms_norm_eps)
        self.mlp = GatedMLP(cfg.hidden_size, cfg.intermediate_size, False, self.dtype)

    def __call__(self, hidden: tuple[Array, ...], views: tuple[SegmentView, ...],
                 past: tuple[KeyPart, ...], buffers: tuple[Array, Array] | None) -> LayerOutput:
        """Returns (hidden, keys, values), each per segment; keys and values as the cache has them.
        """
        normed = tuple(self.input_layernorm(x) for x in hidden)
        attended, keys, values = self.self_attn(normed, views, past, buffers)
        hidden = tuple(hold(x + a) for x, a in zip(hidden, attended))
        hidden = tuple(hold(x + self.mlp(self.post_attention_layernorm(x))) for x in hidden)
        return hidden, keys, values


class SelfAttention(nn.Module):
    """Each segment attends to the past, to the segments before it and to its own past."""

    cfg: TextConfig
    dtype: str
    attention: str = "xla"

    def setup(self) -> None:
        cfg = self.cfg
        bias = cfg.attention_bias
        self.q_proj = Linear(cfg.num_attention_heads * cfg.head_dim, bias, self.dtype)
        self.k_proj = Linear(cfg.num_key_value_heads * cfg.head_dim, bias, self.dtype)
        self.v_proj = Linear(cfg.num_key_value_heads * cfg.head_dim, bias, self.dtype)
        self.o_proj = Linear(cfg.hidden_size, False, self.dtype)

    def __call__(self, hidden: tuple[Array, ...], views: tuple[SegmentView, ...],
                 past: tuple[KeyPart, ...], buffers: tuple[Array, Array] | None) -> LayerOutput:
        """As `DecoderLayer`; with buffers, the returned keys and values are the whole buffers."""
        segments, stored = [], []
        for x, view in zip(map(hold_for_kernel, hidden), views):
            queries = rotate(self._heads(self.q_proj(x)), view.angles)
            keys = rotate(self._heads(self.k_proj(x)), view.angles).swapaxes(-1, -2)
            values = self._heads(self.v_proj(x))
            if buffers is not None:
                keys = _write(buffers[0], keys, view.start, axis=-1)
                values = _write(buffers[1], values, view.start, axis=-2)
            stored.append((keys, values))
            own = _part(self.cfg, keys, values, view.own_mask)
            grouped = queries.reshape(*own.keys.shape[:-2], -1, *queries.shape[-2:])
            segments.append(OwnTokens(grouped, own.keys, own.values, view.mask, view.own_mask))
        attended = attend_segments(segments, past, scale=self.cfg.head_dim**-0.5,
                                   backend=self.attention)
        outputs = tuple(self.o_proj(hold_for_kernel(_join_heads(x), heads=True)) for x in attended)
        return outputs, *zip(*stored)

    def _heads(self, x: Array) -> jax.Array:
        """lead + [T, heads * d] to lead + [heads, T, d]."""
        return hold_rows(x).reshape(*x.shape[:-1], -1, self.cfg.head_dim).swapaxes(-2, -3)


class SegmentView(NamedTuple):
    """What the layers need to know of a segment; the same for every layer."""

    angles: tuple[Array, Array]    # cos and sin, lead + [1, T, d / 2]
    mask: Array                    # lead + [S] bool; S is T, or the buffer's length when decoding
    own_mask: Array                # lead + [T, S] bool: causal, within the segment
    start: Array | None            # [] or [S] int32, where to write when decoding


def rotary_angles(cfg: TextConfig, positions: Array) -> tuple[jax.Array, jax.Array]:
    """M-RoPE: (cos, sin), each lead + [T, d / 2] float32, for positions lead + [T, 3].

    The first `mrope_section[0]` frequencies turn with time, the next with the row, the last with
    the column (Qwen2-VL, section 2.1).
    """
    axis = np.repeat(np.arange(3), cfg.mrope_section)
    angles = positions.astype(jnp.float32)[..., axis] * inverse_frequencies(cfg.head_dim,
                                                                            cfg.rope_theta)
    return jnp.cos(angles), jnp.sin(angles)


def _view(cfg: TextConfig, segment: Segment, buffer: OpenSegment | None) -> SegmentView:
    angles = tuple(a[..., None, :, :] for a in rotary_angles(cfg, segment.positions))
    query = jnp.arange(segment.tokens.shape[-1])[:, None]
    if buffer is None:
        mask, start = segment.mask, None
    else:
        start = buffer.length
        mask = _write_mask(buffer, segment.mask)
        query = query + start[..., None, None]
    causal = jnp.arange(mask.shape[-1])[None, :] <= query
    return SegmentView(angles, mask, mask[..., None, :] & causal, start)


def _past(cfg: TextConfig, cache: KVCache, layer: int) -> tuple[KeyPart, ...]:
    return tuple(_part(cfg, c.keys[layer], c.values[layer], c.mask[..., None, :])
                 for c in cache.closed)


def _part(cfg: TextConfig, keys: Array, values: Array, mask: Array) -> KeyPart:
    """A layer's keys and values, as the cache has them, for a mask lead + [T or 1, S]."""
    outer = (*mask.shape[:-2], cfg.num_key_value_heads)
    return KeyPart(keys.reshape(*outer, *keys.shape[-2:]).swapaxes(-1, -2),
                   values.reshape(*outer, *values.shape[-2:]), mask)


def _buffers(cache: KVCache, layer: int) -> tuple[Array, Array] | None:
    return None if cache.open is None else (cache.open.keys[layer], cache.open.values[layer])


def _extend(cache: KVCache, segments: Sequence[Segment], views: Sequence[SegmentView],
            keys: Sequence[tuple], values: Sequence[tuple]) -> KVCache:
    """The cache with the new segments closed, or with the open buffer advanced."""
    by_segment = list(zip(zip(*keys), zip(*values), views))
    if cache.open is not None:
        new_keys, new_values, view = by_segment[0]
        length = cache.open.length + segments[0].tokens.shape[-1]
        return cache.replace(open=OpenSegment(new_keys, new_values, view.mask, length))
    new = tuple(ClosedSegment(k, v, view.mask) for k, v, view in by_segment)
    return cache.replace(closed=cache.closed + new)


def _written(buffer: OpenSegment, keys: Array, values: Array, mask: Array) -> OpenSegment:
    """The stacked buffer with new keys and values of all layers at its length."""
    length = buffer.length
    return OpenSegment(
        _write(buffer.keys, keys, length, axis=-1), _write(buffer.values, values, length, axis=-2),
        _write_mask(buffer, mask), length + mask.shape[-1])


def _write(buffer: Array, new: Array, start: Array, axis: int) -> jax.Array:
    new = new.reshape(*buffer.shape[:-2], *new.shape[-2:])
    return put(buffer, new, start, axis=axis, rows=-4)


def _write_mask(buffer: OpenSegment, mask: Array) -> jax.Array:
    return put(buffer.mask, mask, buffer.length, axis=-1, rows=-2)


def _join_heads(x: Array) -> jax.Array:
    """lead + [K, R, T, d] to lead + [T, heads * d]."""
    x = x.reshape(*x.shape[:-4], -1, *x.shape[-2:]).swapaxes(-2, -3)
    return x.reshape(*x.shape[:-2], -1)
