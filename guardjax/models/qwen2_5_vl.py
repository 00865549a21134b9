"""Qwen2.5-VL and its relatives (`families.py`) as pure functions of (params, config, arrays).

`params` is a nested dict {"visual": ..., "model": ..., "lm_head": ...}; where the head is tied,
`lm_head` is absent, or the embedding under the name of a turned kernel. Sampling, scoring and
losses all call `forward`.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from guardjax.models.attention import choose_backend
from guardjax.models.cache import KVCache, OpenSegment
from guardjax.models.config import ModelConfig
from guardjax.models.init import Params, init_params
from guardjax.models.linear import KERNEL, LORA_A, LORA_B, product, rounded
from guardjax.models.text import TextDecoder
from guardjax.models.turned import KERNEL_T
from guardjax.models.vision import build_tower
from guardjax.types import Head, Segment, VisionInputs

Array = jax.Array | np.ndarray

__all__ = ["Params", "attention_backend", "encode_images", "forward", "head", "init_params",
           "round_once", "text_decoder", "unembed"]


def attention_backend(cfg: ModelConfig) -> str:
    """The back end that `cfg.attention` stands for on this process's device.

    Raises:
        AttentionError: it cannot do this model on this device.
    """
    heads = {"text": cfg.text.head_dim, "vision": cfg.vision.head_dim}
    return choose_backend(cfg.attention, head_dims=heads, dtype=cfg.dtype)


def text_decoder(cfg: ModelConfig) -> TextDecoder:
    """The Linen module behind `params["model"]`."""
    return TextDecoder(cfg.text, cfg.dtype, attention_backend(cfg), cfg.scan_layers, cfg.remat)


def encode_images(params: Params, cfg: ModelConfig, vision: VisionInputs) -> jax.Array:
    """Image features [B, U, D] in the order of `vision` (window order), U = N / merge**2.

    Slots of padding hold finite numbers that no `feature_index` points to.
    """
    return build_tower(cfg, attention_backend(cfg)).apply({"params": params["visual"]}, vision)


def forward(params: Params, cfg: ModelConfig, segments: Sequence[Segment],
            features: Array | None = None,
            cache: KVCache | None = None) -> tuple[tuple[jax.Array, ...], KVCache]:
    """Hidden states of each segment after the final norm, and the cache with these segments added.

    Every segment sees the closed segments of the cache, the segments before it in the list, and
    its own past. Leading axes grow: each segment's begin with those of the ones before it.

    * training: `forward(params, cfg, [prompt, answers], features)`;
    * prefill: `forward(params, cfg, [prompt], features)`, then `open_buffer(...)` on the cache;
    * decoding: `forward(params, cfg, [next tokens], None, cache)` writes the tokens at the
      buffer's length. The caller sees to it that they fit.

    Args:
        params: see `guardjax.models.init`.
        cfg: static.
        segments: one or more; a single one while the cache has an open buffer.
        features: [B, U, D] from `encode_images`, for segments with a `feature_index`.
        cache: what came before.

    Returns:
        (one array per segment, lead + [T, D]; the new cache).

    Raises:
        ValueError: no segment, leading axes that do not grow, a segment that an open buffer
            cannot take, or placeholders without features.
    """
    cache = KVCache() if cache is None else cache
    if not segments:
        raise ValueError("forward needs at least one segment")
    if cache.open is not None:
        _check_fits(segments, cache.open)
    return text_decoder(cfg).apply({"params": params["model"]}, tuple(segments), features, cache)


def unembed(params: Params, cfg: ModelConfig, hidden: Array) -> jax.Array:
    """Logits [..., V] float32 of hidden states [..., D]."""
    if "lm_head" not in params:
        table = params["model"]["embed_tokens"]["embedding"].astype(cfg.dtype)
        hidden = hidden.astype(cfg.dtype)
        if hidden.size == hidden.shape[-1]:     # one row: a CPU would write out `table.T` for it
            logits = jnp.matmul(table, hidden.reshape(-1), preferred_element_type=jnp.float32)
            return logits.reshape(*hidden.shape[:-1], -1)
        return jnp.matmul(hidden, table.T, preferred_element_type=jnp.float32)
    return product(hidden, params["lm_head"], cfg.dtype, jnp.float32)


def round_once(params: Params, cfg: ModelConfig) -> Params:
    """Parameters that answer the same from fewer bytes; see `linear.rounded`."""
    return rounded(params, cfg.dtype)


def head(params: Params, cfg: ModelConfig) -> Head:
    """What `unembed` multiplies with, as it is stored; with its adapter added if it has one."""
    if cfg.tie_word_embeddings:
        return Head(params["model"]["embed_tokens"]["embedding"], vocab_axis=0, dtype=cfg.dtype)
    leaves = params["lm_head"]
    change = leaves[LORA_A] @ leaves[LORA_B] if LORA_A in leaves else None
    if KERNEL_T in leaves:
        kernel = leaves[KERNEL_T] if change is None else leaves[KERNEL_T] + change.T
        return Head(kernel, vocab_axis=0, dtype=cfg.dtype)
    kernel = leaves[KERNEL] if change is None else leaves[KERNEL] + change
    return Head(kernel, vocab_axis=1, dtype=cfg.dtype)


def _check_fits(segments: Sequence[Segment], buffer: OpenSegment) -> None:
    if len(segments) != 1:
        raise ValueError(f"an open buffer takes one segment at a time, not {len(segments)}")
    *lead, tokens = segments[0].tokens.shape
    *buffer_lead, room = buffer.mask.shape
    if lead != buffer_lead or tokens > room:
        raise ValueError(f"a segment of shape {(*lead, tokens)} does not fit into an open buffer "
                         f"of shape {(*buffer_lead, room)}")
