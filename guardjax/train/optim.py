"""AdamW with a schedule, clipping by global norm, and decay on matrices only."""

from __future__ import annotations

import re
from typing import Any

import jax
import optax

from guardjax.train.config import OptimConfig

# By name as well as by rank: scanned layers stack their biases and scales into matrices.
NO_DECAY = re.compile(r"(^|/)(bias|scale|[^/]*norm[^/]*|ln[^/]*|embed_tokens|embedding)(/|$)")


def make_schedule(config: OptimConfig, steps: int) -> optax.Schedule:
    """Returns update count -> learning rate: linear warm-up, then the schedule, 0 at `steps`.

    Raises:
      ValueError: if the warm-up is longer than the stage.
    """
    if config.warmup_steps > steps:
        raise ValueError(f"optim.warmup_steps={config.warmup_steps} is more than the stage's "
                         f"{steps} steps")
    rest = max(steps - config.warmup_steps, 1)
    after = {
        "constant": optax.constant_schedule(config.lr),
        "cosine": optax.cosine_decay_schedule(config.lr, rest),
        "linear": optax.linear_schedule(config.lr, 0.0, rest),
    }[config.schedule]
    if not config.warmup_steps:
        return after
    # The first update already moves: it gets lr / warmup_steps.
    warmup = optax.linear_schedule(config.lr / config.warmup_steps, config.lr,
                                   max(config.warmup_steps - 1, 1))
    return optax.join_schedules([warmup, after], [config.warmup_steps])


def decay_mask(params: Any) -> Any:
    """Returns the tree with True where weight decay applies: no biases, norms or embeddings."""
    def decays(path: Any, leaf: Any) -> bool:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        return leaf.ndim >= 2 and not NO_DECAY.search(name)

    return jax.tree_util.tree_map_with_path(decays, params)


def make_optimizer(config: OptimConfig, steps: int) -> optax.GradientTransformation:
    """Returns AdamW as configured, for a stage of `steps` updates."""
    clip = optax.clip_by_global_norm(config.clip_norm) if config.clip_norm else optax.identity()
    return optax.chain(
        clip,
        optax.adamw(make_schedule(config, steps), b1=config.b1, b2=config.b2,
                    weight_decay=config.weight_decay, mask=decay_mask),
    )
