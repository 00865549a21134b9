"""What a run keeps of the adapters that its stages train: `adapter/<stage>` in PEFT's format.

The model that a run writes has them in its weights. Apart from them they are small, and can be put
over the model that the stage began with: for the first stage the run's base, for a later one what
the stages before it made.
"""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import Any

import jax

from guardjax.models.config import ModelConfig
from guardjax.models.init import param_shapes
from guardjax.models.peft_adapter import Adapter
from guardjax.models.peft_save import adapted, save_peft
from guardjax.train.config import StageConfig
from guardjax.train.disk import explain_full_disk
from guardjax.train.recipe import Recipe

FOLDER = "adapter"


def check_adapters(recipe: Recipe, cfg: ModelConfig) -> None:
    """Checks that a stage's adapters can be written, before it trains them.

    Raises:
      ValueError: a target whose factors PEFT writes otherwise.
    """
    def start(params: Any) -> Any:
        return recipe.adapters(recipe.split(params, jax.random.key(0))[0])

    adapted(jax.eval_shape(start, param_shapes(cfg)), cfg)


def adapter_writer(config: StageConfig, cfg: ModelConfig, base: str,
                   folder: pathlib.Path) -> Callable[[Any], None]:
    """Returns what writes a stage's adapters; `base` is the model's name that they go over."""
    target = folder / FOLDER / config.name

    def write(adapters: Any) -> None:
        with explain_full_disk(target):
            save_peft(Adapter(adapters, config.lora.rank, config.lora.alpha, base), cfg, target)

    return write
