"""What the two ways of decoding share: where they begin, what follows, and who still goes on."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from guardjax.rl.draw import Drawn
from guardjax.rl.model_fns import KVCache, ModelFns, Params
from guardjax.rl.sampling_params import SamplingParams
from guardjax.rl.stops import ends_with, no_tokens, push
from guardjax.types import Array, PromptBatch, Samples


class Start(NamedTuple):
    """B prompts that went through the model, and the first token of each of their G answers."""

    prompts: PromptBatch
    cache: KVCache      # of the prompts, lead [B]
    keys: Array         # [B, G] typed keys
    first: Drawn        # each [B, G]
    limit: Array        # [B, G] int32, the most tokens of each answer; 0 of a filler's


def next_logits(fns: ModelFns, params: Params, hidden: Array) -> Array:
    """Logits [..., V] float32 after a step of the model, whose hidden states [..., D] are given.

    The head is not asked for before these are there. Else a TPU's compiler may carry it in fast
    memory from step to step, write it out to make room for the layers, and fetch it again.
    """
    hidden, params = jax.lax.optimization_barrier((hidden, params))
    return fns.unembed(params, hidden)


def unfinished(samples: Samples, limit: Array) -> Array:
    """Bool, of the answers' leading shape: True while an answer goes on."""
    return jnp.logical_not(samples.ended) & (samples.length < limit)


def record(samples: Samples, recent: Array, drawn: Drawn, step: Array | int, limit: Array,
           sampling: SamplingParams) -> tuple[Samples, Array]:
    """Writes token `step` of every answer that goes on: (samples, their last tokens)."""
    live = unfinished(samples, limit)
    token = jnp.where(live, drawn.token, sampling.pad_id)
    recent = push(recent, token)
    put = lambda array, new: array.at[..., step].set(jnp.where(live, new, 0))
    return samples.replace(
        tokens=samples.tokens.at[..., step].set(token),
        length=samples.length + live,
        logp=put(samples.logp, drawn.logp),
        model_logp=put(samples.model_logp, drawn.model_logp),
        ended=samples.ended | live & ends_with(recent, sampling.stops),
    ), recent


def begin(start: Start, sampling: SamplingParams) -> tuple[Samples, Array]:
    """Samples [B, G] of one token each, and their last tokens [B, G, K] (see `stops.py`)."""
    lead = start.limit.shape
    shape = (*lead, sampling.max_tokens)
    empty = Samples(
        tokens=jnp.full(shape, sampling.pad_id, jnp.int32),
        length=jnp.zeros(lead, jnp.int32),
        logp=jnp.zeros(shape, jnp.float32),
        model_logp=jnp.zeros(shape, jnp.float32),
        ended=start.limit == 0,
    )
    return record(empty, no_tokens(lead, sampling.stops), start.first, 0, start.limit, sampling)
