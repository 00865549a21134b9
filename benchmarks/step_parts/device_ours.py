"""Our side on an accelerator. `python -m step_parts.device_ours SHAPE`, see `turns.py`.

A turn decodes, updates, and measures what this device can do at most.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from step_parts.device_shapes import RANK, SHAPES, TARGETS, Shape
from step_parts.turns import Turns

import guardjax.models as models
from guardjax.models.init import param_shapes
from guardjax.rl.answers import completion_mask
from guardjax.rl.logprobs import token_logprobs
from guardjax.rl.losses import LossParams, policy_loss
from guardjax.rl.model_fns import bind
from guardjax.rl.sampling import SamplingParams, generate
from guardjax.rl.transform import make_transform
from guardjax.train.config import LoraConfig, OptimConfig
from guardjax.train.optim import make_optimizer
from guardjax.train.recipe import make_recipe
from guardjax.train.state import init_state
from guardjax.train.steps import make_train_step
from guardjax.types import PromptBatch, Segment


def random_params(shape: Shape) -> Any:
    """Frozen weights in bfloat16; norms near 1."""
    leaves, tree = jax.tree.flatten_with_path(param_shapes(shape.cfg))

    def one(key: jax.Array, path: Any, leaf: Any) -> jax.Array:
        drawn = 0.02 * jax.random.normal(key, leaf.shape, jnp.bfloat16)
        return drawn + 1 if "scale" in jax.tree_util.keystr(path) else drawn

    keys = jax.random.split(jax.random.key(0), len(leaves))
    return jax.jit(lambda keys: jax.tree.unflatten(
        tree, [one(key, *leaf) for key, leaf in zip(keys, leaves)]))(keys)


def prompts_of(shape: Shape) -> PromptBatch:
    """Random words, none padded."""
    lead = (shape.prompts, shape.prompt)
    words = jax.random.randint(jax.random.key(1), lead, 0, 800, jnp.int32)
    place = jnp.broadcast_to(jnp.arange(shape.prompt, dtype=jnp.int32)[:, None], (*lead, 3))
    return PromptBatch(Segment(words, place, jnp.ones(lead, bool)),
                       jnp.full(shape.prompts, shape.prompt, jnp.int32))


def seconds(run: Callable[[], object]) -> float:
    """Of one run."""
    start = time.perf_counter()
    jax.block_until_ready(run())
    return time.perf_counter() - start


def ceilings(shape: Shape) -> dict[str, Callable[[], float]]:
    """Bytes a second of going through memory, and operations a second of a matrix product."""
    array = jnp.ones(shape.copied // 2, jnp.bfloat16)
    square = jnp.ones((shape.side, shape.side), jnp.bfloat16)
    copy, product = jax.jit(lambda x: x + 1), jax.jit(jnp.matmul)
    return {"bandwidth": lambda: 2 * shape.copied / seconds(lambda: copy(array)),
            "arithmetic": lambda: 2 * shape.side**3 / seconds(lambda: product(square, square))}


def main(shape: Shape) -> None:
    """Takes turns until there are no more."""
    turns, cfg = Turns(), shape.cfg
    fns, params, prompts = bind(models, cfg), random_params(shape), prompts_of(shape)
    end = cfg.text.vocab_size - 1
    transform = make_transform(cfg.text.vocab_size, blocked=[end])
    recipe = make_recipe(("visual",), LoraConfig(RANK, targets=TARGETS))
    trained, frozen = recipe.split(params, jax.random.key(2))
    tx = make_optimizer(OptimConfig(lr=1e-6, schedule="constant"), 1)
    lead = (shape.prompts, shape.group)

    def sampler(tokens: int) -> Callable[[], jax.Array]:
        sampling = SamplingParams(shape.group, tokens, end_id=end, pad_id=0)
        sample = jax.jit(lambda trained, frozen, prompts, key: generate(
            fns, recipe.merge(trained, frozen), prompts, key, sampling, transform).tokens)
        return lambda: sample(state.params, frozen, prompts, state.key)

    def loss(trained: Any, frozen: Any, batch: Any, key: jax.Array) -> Any:
        del key
        length = jnp.full(lead, shape.tokens)
        logp, _ = token_logprobs(fns, recipe.merge(trained, frozen), batch["prompts"],
                                 batch["tokens"], length, transform)
        advantages = jnp.broadcast_to(jnp.where(jnp.arange(shape.group) % 2, 1.0, -1.0), lead)
        sums = policy_loss(logp, None, None, advantages,
                           completion_mask(length, shape.tokens), LossParams())
        return sums.loss, sums.count, sums.metrics()

    step = make_train_step(loss, tx, name="update")
    state = init_state(trained, tx, jax.random.key(3))
    del params, trained
    whole, first, limits = sampler(shape.tokens), sampler(1), ceilings(shape)
    batch = {"prompts": prompts, "tokens": whole()}
    first(), [limit() for limit in limits.values()]
    state, _ = step(state, frozen, batch)

    def update() -> Any:
        nonlocal state
        state, _ = step(state, frozen, batch)
        return state

    device = jax.devices()[0]
    turns.loaded(versions=f"jax {jax.__version__}", device=device.device_kind,
                 attention=models.attention_backend(cfg))
    while True:
        turns.begin()
        decode = (seconds(whole) - seconds(first)) / (shape.tokens - 1)
        turns.end(decode=decode, update=seconds(update),
                  **{name: limit() for name, limit in limits.items()})


if __name__ == "__main__":
    main(SHAPES[sys.argv[1]])
