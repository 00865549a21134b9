"""Sampling G answers to each prompt: the prompt once, then one token a step.

The pictures are encoded once and the prompts go through the model once, what they have in common
(`PromptBatch.trunk`) once for all of them. The answers
are then decoded against its shared keys and values, either all together (`lockstep.py`) or a fixed
number at a time, where each place is taken by the next answer as soon as one ends (`slots.py`).
"""

from __future__ import annotations

import jax.numpy as jnp

from guardjax.rl.answers import last_hidden
from guardjax.rl.decoding import Start
from guardjax.rl.draw import draw, sample_keys
from guardjax.rl.lockstep import decode_together
from guardjax.rl.model_fns import ModelFns, Params, encode_vision
from guardjax.rl.sampling_params import SamplingParams
from guardjax.rl.slots import decode_in_slots
from guardjax.rl.transform import LogitTransform
from guardjax.types import Array, PromptBatch, Samples

__all__ = ["SamplingParams", "generate"]


def generate(
    fns: ModelFns,
    params: Params,
    prompts: PromptBatch,
    key: Array,
    sampling: SamplingParams,
    transform: LogitTransform,
    *,
    example_index: Array | None = None,
    features: Array | None = None,
    limit: Array | None = None,
) -> Samples:
    """Samples G completions of each prompt. Pure: call it inside `jit`.

    The key of a token is `fold_in(fold_in(fold_in(key, example_index), g), t)`: a sample depends
    on its example, not on who else is in the batch, on padding or on its slot.

    Args:
      fns: the model.
      params: its parameters.
      prompts: B prompts, which may branch from trunks. A row that is all padding (a filler) gets
        empty, ended answers and never holds the others up.
      key: one PRNG key, typed or raw, of the default threefry kind: under `vmap` an "rbg" key
        would make a sample depend on its neighbours.
      sampling: static numbers.
      transform: temperature and allowed tokens, the same that the loss uses.
      example_index: [B] int32, which example each row is; by default its row.
      features: image features as of `encode_vision`, where the caller already has them.
      limit: [B, G] int32 >= 1, the most tokens of each answer where some may have fewer than
        `max_tokens`.

    Returns:
      Samples with lead [B, G]. `length` counts the end token; both log-probabilities are 0 beyond
      it. NaN logits give NaN log-probabilities.

    Raises:
      ValueError: more slots than answers, or slots for a model that has none.
    """
    shape = (prompts.size, sampling.num_samples)
    if sampling.slots > shape[0] * shape[1]:
        raise ValueError(
            f"{sampling.slots} slots do not fit: {shape[0]} prompts have {shape[0] * shape[1]} "
            "answers; set slots to at most that, or to 0 to decode all together")
    if example_index is None:
        example_index = jnp.arange(shape[0], dtype=jnp.int32)
    keys = sample_keys(key, jnp.asarray(example_index), sampling.num_samples)

    vision = encode_vision(fns, params, prompts, features)
    (*_, hidden), cache = fns.forward(params, prompts.segments, vision, None)
    # All G answers begin from one and the same distribution, [B, V].
    logits = transform(fns.unembed(params, last_hidden(hidden, prompts.prompt.mask)))
    first = draw(keys, jnp.int32(0), logits, greedy=sampling.greedy,
                 truncation=sampling.truncation)

    most = jnp.int32(sampling.max_tokens)
    most = most if limit is None else jnp.minimum(limit, most)
    exists = jnp.any(prompts.prompt.mask, axis=-1).reshape(-1, 1)
    limit = jnp.broadcast_to(jnp.where(exists, most, 0), shape).astype(jnp.int32)
    decode = decode_in_slots if sampling.slots else decode_together
    return decode(fns, params, Start(prompts, cache, keys, first, limit), sampling, transform)
