"""Qwen2.5-VL and its relatives as pure functions over Linen modules, and weights in and out."""

from guardjax.models.cache import KVCache, open_buffer, open_slots, refill_slots
from guardjax.models.config import ModelConfig
from guardjax.models.hf_weights import load_hf, save_hf
from guardjax.models.init import liken_queries_to_keys
from guardjax.models.qwen2_5_vl import (
    attention_backend,
    encode_images,
    forward,
    head,
    init_params,
    round_once,
    unembed,
)

__all__ = [
    "KVCache", "ModelConfig", "attention_backend", "encode_images", "forward", "head",
    "init_params", "liken_queries_to_keys", "load_hf", "open_buffer",
    "open_slots", "refill_slots", "round_once", "save_hf", "unembed",
]
