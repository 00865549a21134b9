"""Adapters that our code and PEFT both get from seeds, without torch."""

from __future__ import annotations

import zlib
from typing import Any

import flax.traverse_util
import jax
import numpy as np

from guardjax.models.config import ModelConfig
from guardjax.models.init import param_shapes
from guardjax.models.peft_adapter import Adapter
from guardjax.train.config import LoraConfig
from guardjax.train.lora import init_adapters

# In both towers, in the head, and not in every layer's every kernel.
LORA = LoraConfig(rank=2, alpha=5.0, targets=("q_proj", "down_proj", "qkv", "lm_head"))


def seeded_adapter(cfg: ModelConfig) -> Adapter:
    """Factors that change the logits much; those of a stack are not those of its layers."""
    def draw(path: tuple[str, ...], leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        rng = np.random.default_rng(zlib.crc32("/".join(path).encode()))
        return 0.3 * rng.standard_normal(leaf.shape).astype(np.float32)

    shapes: Any = jax.eval_shape(lambda p: init_adapters(p, LORA, jax.random.key(0)),
                                 param_shapes(cfg))
    flat = flax.traverse_util.flatten_dict(shapes)
    return Adapter(flax.traverse_util.unflatten_dict({p: draw(p, x) for p, x in flat.items()}),
                   LORA.rank, LORA.alpha, "org/a-base")
