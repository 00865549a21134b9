"""Decoding all answers together, until the longest has ended."""

from __future__ import annotations

import flax.struct
import jax
import jax.numpy as jnp

from guardjax.rl.answers import answer_segment
from guardjax.rl.decoding import Start, begin, next_logits, record, unfinished
from guardjax.rl.draw import draw
from guardjax.rl.model_fns import KVCache, ModelFns, Params
from guardjax.rl.sampling_params import SamplingParams
from guardjax.rl.transform import LogitTransform
from guardjax.types import Array, Samples


@flax.struct.dataclass
class DecodeState:
    """All that one step of decoding hands to the next."""

    step: Array       # [] int32, the index t of the next token
    cache: KVCache    # prompts, then a buffer of lead [B, G], or [I, M, G] after a trunk
    recent: Array     # [B, G, K] int32, the last tokens; the newest is not yet in the cache
    samples: Samples  # [B, G]


def decode_together(fns: ModelFns, params: Params, start: Start, sampling: SamplingParams,
                    transform: LogitTransform) -> Samples:
    """Samples [B, G]; one step of the model decodes one token of each of the B * G answers."""
    samples, recent = begin(start, sampling)
    if sampling.max_tokens == 1:
        return samples

    def goes_on(state: DecodeState) -> Array:
        return jnp.any(unfinished(state.samples, start.limit))

    def decode(state: DecodeState) -> DecodeState:
        live = unfinished(state.samples, start.limit)
        segment = answer_segment(
            start.prompts, state.recent[..., -1:], live[..., None], state.step - 1)
        (hidden,), cache = fns.forward(params, (segment,), None, state.cache)
        hidden = hidden.reshape(*live.shape, -1)
        logits = transform(next_logits(fns, params, hidden))
        drawn = draw(start.keys, state.step, logits, greedy=sampling.greedy,
                     truncation=sampling.truncation)
        samples, recent = record(
            state.samples, state.recent, drawn, state.step, start.limit, sampling)
        return DecodeState(state.step + 1, cache, recent, samples)

    # The last token of an answer is never fed back, hence room for T - 1.
    cache = fns.open_buffer(
        start.cache, (*start.prompts.lead, start.limit.shape[1]), sampling.max_tokens - 1)
    state = DecodeState(jnp.int32(1), cache, recent, samples)
    return jax.lax.while_loop(goes_on, decode, state).samples
