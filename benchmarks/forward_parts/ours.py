"""Our side: prefill, and the decoding of `rl.sampling.generate` from a prompt's cache."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
from forward_parts.cases import Model, Row, prompt_batch

import guardjax.models as models
from guardjax.models.init import Params
from guardjax.models.linear import KERNEL, product
from guardjax.models.turned import KERNEL_T
from guardjax.rl.answers import last_hidden
from guardjax.rl.model_fns import bind
from guardjax.rl.sampling import SamplingParams, generate
from guardjax.rl.transform import make_transform
from guardjax.types import PromptBatch, Segment


class Ours:
    """The port, for one batch of rows.

    `decode` is the sampler with the prompt's hidden state and cache handed in: T tokens, the first
    of them from the prompt, so T - 1 steps.
    """

    def __init__(self, model: Model, rows: list[Row]) -> None:
        self.model, self.rows = model, rows
        self._prefill = jax.jit(functools.partial(_prefill, model))
        self._decode = jax.jit(functools.partial(_decode, model))
        self._products = jax.jit(functools.partial(_products, model))
        self._inputs = jnp.ones((len(rows), max(model.cfg.text.hidden_size,
                                                model.cfg.text.intermediate_size)))
        _, self._start = self.prefill()

    def prefill(self) -> tuple[jax.Array, tuple]:
        """(logits of the next token [B, V], what decoding starts from)."""
        prompts = prompt_batch(self.model.cfg, self.rows)
        logits, hidden, cache = self.prefill_laid_out(prompts)
        first = Segment(prompts.prompt.tokens[:, :1], prompts.prompt.positions[:, :1],
                        prompts.prompt.mask[:, :1])
        return (jax.block_until_ready(logits),
                (PromptBatch(first, prompts.next_pos), hidden[:, None], cache))

    def prefill_laid_out(self, prompts: PromptBatch) -> tuple[jax.Array, jax.Array, Any]:
        """(logits of the next token [B, V], its hidden state [B, D], cache): the program alone."""
        return jax.block_until_ready(self._prefill(self.model.ours, prompts))

    def decode(self) -> np.ndarray:
        """The likeliest tokens [B, T]."""
        return np.asarray(self._decode(self.model.ours, *self._start))[:, 0]

    def products(self) -> list[jax.Array]:
        """The matrix products of a step of decoding alone, nothing between them."""
        return jax.block_until_ready(self._products(self.model.ours, self._inputs))

    def num_programs(self) -> int:
        """Programs compiled so far: one for prefill and one for decoding are enough."""
        return self._prefill._cache_size() + self._decode._cache_size()

    def prefill_program(self, prompts: PromptBatch) -> jax.stages.Compiled:
        """The compiled program behind `prefill`."""
        return self._prefill.lower(self.model.ours, prompts).compile()

    def decode_program(self) -> jax.stages.Compiled:
        """The compiled program behind `decode`."""
        return self._decode.lower(self.model.ours, *self._start).compile()


def _products(model: Model, params: Params, rows: jax.Array) -> list[jax.Array]:
    leaves = flax.traverse_util.flatten_dict(params["model"])
    hidden = rows[:, :model.cfg.text.hidden_size]
    wide = {KERNEL: 0, KERNEL_T: 1}     # the axis of a matrix that is multiplied
    return [product(rows[:, :leaf.shape[wide[path[-1]]]], {path[-1]: leaf}, model.cfg.dtype)
            for path, leaf in leaves.items() if path[-1] in wide] + [
                models.unembed(params, model.cfg, hidden)]


def _prefill(model: Model, params: Params,
             prompts: PromptBatch) -> tuple[jax.Array, jax.Array, Any]:
    fns = bind(models, model.cfg)
    features = fns.encode(params, prompts.vision)
    (hidden,), cache = fns.forward(params, (prompts.prompt,), features, None)
    hidden = last_hidden(hidden, prompts.prompt.mask)
    return fns.unembed(params, hidden), hidden, cache


def _decode(model: Model, params: Params, prompts: PromptBatch, hidden: jax.Array,
            prompt_cache: Any) -> jax.Array:
    fns = bind(models, model.cfg)

    def forward(params: Params, segments: Any, features: Any, cache: Any) -> tuple:
        if cache is None:       # the prompt, which is done
            return (hidden,), prompt_cache
        return fns.forward(params, segments, features, cache)

    end = model.cfg.text.vocab_size - 1     # never sampled, so that no answer ends early
    sampling = SamplingParams(1, model.tokens, end_id=end, pad_id=0, greedy=True)
    return generate(dataclasses.replace(fns, forward=forward), params, prompts, jax.random.key(0),
                    sampling, make_transform(end + 1, blocked=[end])).tokens
