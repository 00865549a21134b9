"""Our side of a comparison with the reference: the functions that training and sampling call."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from guardjax import models
from guardjax.models.config import ModelConfig
from guardjax.models.hf_names import from_hf_layout, tensor_table, to_hf_layout
from guardjax.rl.logprobs import token_logprobs
from guardjax.rl.model_fns import bind
from guardjax.rl.sampling import SamplingParams, generate
from guardjax.rl.transform import LogitTransform
from guardjax.types import PromptBatch
from tests.models.parity_cases import random_tensor
from tests.models.reference_cases import Row, make_inputs, positions_of

Weights = Callable[[str, tuple[int, ...]], np.ndarray]


def make_params(cfg: ModelConfig, weights: Weights = random_tensor) -> dict:
    """Parameters in float32, the same that `reference_model.build` gives the reference."""
    return flax.traverse_util.unflatten_dict({
        spec.path: from_hf_layout(spec, weights(spec.name, spec.shape))
        for spec in tensor_table(cfg)})


def row_logits(params: dict, cfg: ModelConfig, rows: Sequence[Row]) -> list[np.ndarray]:
    """Logits [T, V] float32 of each row, computed as one batch padded on the right."""
    logits = np.asarray(_logits(params, cfg, make_prompts(cfg, rows)))
    return [logits[number, :len(row.tokens)] for number, row in enumerate(rows)]


def gradient(params: dict, cfg: ModelConfig, rows: Sequence[Row], tokens: np.ndarray,
             length: np.ndarray) -> tuple[float, dict[str, np.ndarray]]:
    """(loss, hub name -> gradient in the hub's shape) of `sft`'s loss on answers [B, G, T].

    Without the parameters whose gradient is exactly zero: the loss does not depend on them.
    """
    loss, tree = _loss_and_gradient(params, cfg, make_prompts(cfg, rows), tokens, length)
    flat = flax.traverse_util.flatten_dict(tree)
    leaves = {spec.name: to_hf_layout(spec, np.asarray(flat[spec.path]))
              for spec in tensor_table(cfg)}
    return float(loss), {name: leaf for name, leaf in leaves.items() if leaf.any()}


def greedy(params: dict, cfg: ModelConfig, rows: Sequence[Row], max_tokens: int,
           end_id: int) -> list[list[int]]:
    """The likeliest answer to each row, token for token; the end token is the last, if it came."""
    samples = _greedy(params, cfg, make_prompts(cfg, rows), max_tokens, end_id)
    return [samples.tokens[row, 0, :samples.length[row, 0]].tolist() for row in range(len(rows))]


def make_prompts(cfg: ModelConfig, rows: Sequence[Row]) -> PromptBatch:
    """The rows as the model takes them: padded on the right, patches in window order."""
    segment, vision = make_inputs(cfg, list(rows))
    next_pos = np.asarray([positions_of(cfg, row)[1] for row in rows], np.int32)
    return PromptBatch(segment, next_pos, vision)


@functools.partial(jax.jit, static_argnums=1)
def _logits(params, cfg: ModelConfig, prompts: PromptBatch) -> jax.Array:
    vision = prompts.vision
    features = None if vision is None else models.encode_images(params, cfg, vision)
    (hidden,), _ = models.forward(params, cfg, [prompts.prompt], features)
    return models.unembed(params, cfg, hidden)


@functools.partial(jax.jit, static_argnums=1)
def _loss_and_gradient(params, cfg: ModelConfig, prompts: PromptBatch, tokens, length):
    def loss(params):
        logp, _ = token_logprobs(bind(models, cfg), params, prompts, tokens, length,
                                 LogitTransform())
        return -logp.sum() / jnp.sum(length)

    return jax.value_and_grad(loss)(params)


@functools.partial(jax.jit, static_argnums=(1, 3, 4))
def _greedy(params, cfg: ModelConfig, prompts: PromptBatch, max_tokens: int, end_id: int):
    sampling = SamplingParams(num_samples=1, max_tokens=max_tokens, end_id=end_id, pad_id=end_id,
                              greedy=True)
    return generate(bind(models, cfg), params, prompts, jax.random.key(0), sampling,
                    LogitTransform())
