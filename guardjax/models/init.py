"""The parameter tree of a config: its shapes, and random starting values."""

from __future__ import annotations

import dataclasses
import functools
import zlib
from typing import Any

import flax.traverse_util
import jax
import jax.numpy as jnp

from guardjax.models.cache import KVCache
from guardjax.models.config import ModelConfig
from guardjax.models.stacking import by_place, place
from guardjax.models.text import TextDecoder
from guardjax.models.vision import build_tower
from guardjax.types import Segment, VisionInputs

Params = dict[str, Any]


def param_shapes(cfg: ModelConfig) -> Params:
    """The tree of `jax.ShapeDtypeStruct` of any size, without allocating it. Types are float32."""
    key = jax.random.key(0)
    vision = build_tower(cfg, "xla")
    text = TextDecoder(cfg.text, cfg.dtype, scan=cfg.scan_layers)
    shapes = {
        "visual": jax.eval_shape(vision.init, key, _blank_vision(cfg))["params"],
        "model": jax.eval_shape(lambda k: text.init(k, (_blank_segment(),), None, KVCache()),
                                key)["params"],
    }
    if not cfg.tie_word_embeddings:
        head = (cfg.text.hidden_size, cfg.text.vocab_size)
        shapes["lm_head"] = {"kernel": jax.ShapeDtypeStruct(head, jnp.float32)}
    return shapes


def init_params(cfg: ModelConfig, key: jax.Array) -> Params:
    """Random float32 parameters: normal weights of `initializer_range`, zero biases, unit norms.

    Each leaf draws from the key and its own name in the unrolled model, so that it depends neither
    on the other leaves nor on `scan_layers`. Call it outside `jax.jit`: a program of hundreds of
    draws compiles slowly.
    """
    def draw(name: str, leaf: jax.ShapeDtypeStruct) -> jax.Array:
        if name.endswith("/scale"):
            return jnp.ones(leaf.shape, leaf.dtype)
        if name.endswith("/bias"):
            return jnp.zeros(leaf.shape, leaf.dtype)
        own_key = jax.random.fold_in(key, zlib.crc32(name.encode()))
        return _normal(own_key, leaf.shape, cfg.text.initializer_range)

    shapes = flax.traverse_util.flatten_dict(param_shapes(cfg))
    unrolled = flax.traverse_util.flatten_dict(
        param_shapes(dataclasses.replace(cfg, scan_layers=False)))
    flat = {}
    for path, layers in by_place(cfg, unrolled).items():
        drawn = [draw("/".join(source), unrolled[source]) for _, source in layers]
        stacked = bool(layers[0][0])
        flat[path] = jnp.stack(drawn).reshape(shapes[path].shape) if stacked else drawn[0]
    return flax.traverse_util.unflatten_dict(flat)


def liken_queries_to_keys(params: Params, cfg: ModelConfig, share: float = 0.9) -> Params:
    """The decoder with every query projection close to that of the keys it meets.

    Tokens of the same word then attend to each other from the start, which is the first half of
    looking a word up; from independent projections a small model finds that late. After mimetic
    initialisation (Trockman & Kolter 2023, arXiv 2305.09828), simplified.

    Args:
      params: the tree of `init_params`.
      cfg: its config.
      share: queries become `share * keys + sqrt(1 - share**2) * queries`, of the same variance.
    """
    text, model = cfg.text, dict(params["model"])
    ratio = text.num_attention_heads // text.num_key_value_heads
    for name in {place(cfg, ("model", f"layers_{i}"))[0][1] for i in range(text.num_hidden_layers)}:
        layer = dict(model[name])
        attention = dict(layer["self_attn"])
        queries, keys = attention["q_proj"]["kernel"], attention["k_proj"]["kernel"]
        heads = keys.reshape(*keys.shape[:-1], text.num_key_value_heads, -1)
        likened = jnp.repeat(heads, ratio, axis=-2).reshape(queries.shape)
        attention["q_proj"] = attention["q_proj"] | {
            "kernel": share * likened + (1 - share**2) ** 0.5 * queries}
        model[name] = layer | {"self_attn": attention}
    return params | {"model": model}


@functools.partial(jax.jit, static_argnums=1)
def _normal(key: jax.Array, shape: tuple[int, ...], std: float) -> jax.Array:
    return std * jax.random.normal(key, shape)


def _blank_vision(cfg: ModelConfig) -> VisionInputs:
    num = cfg.vision.window_patches
    return VisionInputs(patches=jnp.zeros((1, num, cfg.vision.patch_dim)),
                        hw=jnp.zeros((1, num, 2), jnp.int32), frame=jnp.zeros((1, num), jnp.int32))


def _blank_segment() -> Segment:
    return Segment(tokens=jnp.zeros((1, 1), jnp.int32), positions=jnp.zeros((1, 1, 3), jnp.int32),
                   mask=jnp.ones((1, 1), bool))
