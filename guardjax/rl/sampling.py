"""Sampling G answers to each prompt: the prompt once, then one token a step.

The pictures are encoded once, the prompt goes through the model once with lead [B], and the
answers are decoded with lead [B, G] against its shared keys and values.
"""

from __future__ import annotations

import dataclasses

import flax.struct
import jax
import jax.numpy as jnp

from guardjax.rl.model_fns import KVCache, ModelFns, Params, encode_vision
from guardjax.rl.answers import answer_segment, last_hidden
from guardjax.rl.transform import LogitTransform
from guardjax.types import Array, PromptBatch, Samples


@dataclasses.dataclass(frozen=True)
class SamplingParams:
    """What is sampled; static under `jit`. The temperature lives in `LogitTransform` alone.

    Attributes:
      num_samples: G, answers a prompt.
      max_tokens: T, the most tokens of an answer, end token included.
      end_id: the token that ends an answer.
      pad_id: fills `tokens` beyond `length`; it may equal `end_id`.
      greedy: take the most likely token; `logp` is still that of the transformed distribution.
    """

    num_samples: int
    max_tokens: int
    end_id: int
    pad_id: int
    greedy: bool = False

    def __post_init__(self) -> None:
        if self.num_samples < 1 or self.max_tokens < 1:
            raise ValueError(
                f"num_samples ({self.num_samples}) and max_tokens ({self.max_tokens}) must be >= 1"
            )
        if self.end_id < 0 or self.pad_id < 0:
            raise ValueError(f"end_id ({self.end_id}) and pad_id ({self.pad_id}) must be ids")


@flax.struct.dataclass
class DecodeState:
    """All that one step of decoding hands to the next."""

    step: Array       # [] int32, the index t of the next token
    cache: KVCache    # prompt with lead [B], then a buffer of lead [B, G]
    last: Array       # [B, G] int32, the token of step t - 1, not yet in the cache
    live: Array       # [B, G] bool, False once the end token was sampled
    tokens: Array     # [B, G, T] int32
    length: Array     # [B, G] int32
    logp: Array       # [B, G, T] float32


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
) -> Samples:
    """Samples G completions of each prompt. Pure: call it inside `jit`.

    The key of a token is `fold_in(fold_in(fold_in(key, example_index), g), t)`: a sample depends
    on its example, not on who else is in the batch nor on padding.

    Args:
      fns: the model.
      params: its parameters.
      prompts: B prompts. A row that is all padding (a filler) gets empty, ended answers and
        never holds the others up.
      key: one PRNG key, typed or raw, of the default threefry kind: under `vmap` an "rbg" key
        would make a sample depend on its neighbours.
      sampling: static numbers.
      transform: temperature and allowed tokens, the same that the loss uses.
      example_index: [B] int32, which example each row is; by default its row.
      features: [B, U, D] image features, where the caller already has them.

    Returns:
      Samples with lead [B, G]. `length` counts the end token; `logp` is the natural log under the
      transformed distribution and 0 beyond `length`. NaN logits give NaN `logp`.
    """
    batch = prompts.prompt.tokens.shape[0]
    group, max_tokens = sampling.num_samples, sampling.max_tokens
    if example_index is None:
        example_index = jnp.arange(batch, dtype=jnp.int32)
    keys = _sample_keys(key, jnp.asarray(example_index), group)

    vision = encode_vision(fns, params, prompts, features)
    (hidden,), cache = fns.forward(params, (prompts.prompt,), vision, None)
    # All G answers begin from one and the same distribution, [B, V].
    logits = fns.unembed(params, last_hidden(hidden, prompts.prompt.mask))
    token, logp = _draw(keys, 0, transform(logits), sampling.greedy)

    exists = jnp.any(prompts.prompt.mask, axis=-1, keepdims=True)
    empty = DecodeState(
        step=jnp.int32(0),
        cache=cache,
        last=jnp.full((batch, group), sampling.pad_id, jnp.int32),
        live=jnp.broadcast_to(exists, (batch, group)),
        tokens=jnp.full((batch, group, max_tokens), sampling.pad_id, jnp.int32),
        length=jnp.zeros((batch, group), jnp.int32),
        logp=jnp.zeros((batch, group, max_tokens), jnp.float32),
    )
    state = _write(empty, token, logp, sampling)

    if max_tokens > 1:
        # The last token of an answer is never fed back, hence room for T - 1.
        state = state.replace(cache=fns.open_buffer(cache, (batch, group), max_tokens - 1))

        def unfinished(state: DecodeState) -> Array:
            return (state.step < max_tokens) & jnp.any(state.live)

        def decode(state: DecodeState) -> DecodeState:
            segment = answer_segment(
                prompts, state.last[..., None], state.live[..., None], state.step - 1
            )
            (hidden,), cache = fns.forward(params, (segment,), None, state.cache)
            logits = transform(fns.unembed(params, hidden[:, :, 0]))
            token, logp = _draw(keys, state.step, logits, sampling.greedy)
            return _write(state.replace(cache=cache), token, logp, sampling)

        state = jax.lax.while_loop(unfinished, decode, state)

    return Samples(
        tokens=state.tokens, length=state.length, logp=state.logp, ended=jnp.logical_not(state.live)
    )


def _sample_keys(key: Array, example_index: Array, group: int) -> Array:
    """Keys [B, G], one a sample."""
    rows = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, example_index)
    per_group = jax.vmap(jax.random.fold_in, in_axes=(None, 0))
    return jax.vmap(per_group, in_axes=(0, None))(rows, jnp.arange(group))


def _draw(keys: Array, step: Array | int, logits: Array, greedy: bool) -> tuple[Array, Array]:
    """Token and its log-probability, both [B, G].

    `logits` are transformed, [B, G, V], or [B, V] where the group shares them.
    """

    def draw(key: Array, row: Array) -> tuple[Array, Array]:
        if greedy:
            token = jnp.argmax(row)
        else:
            token = jax.random.categorical(jax.random.fold_in(key, step), row)
        return token.astype(jnp.int32), row[token] - jax.nn.logsumexp(row)

    group = jax.vmap(draw, in_axes=(0, None if logits.ndim == 2 else 0))
    return jax.vmap(group)(keys, logits)


def _write(state: DecodeState, token: Array, logp: Array, sampling: SamplingParams) -> DecodeState:
    """Records token `state.step` of every live answer and retires those that ended."""
    token = jnp.where(state.live, token, sampling.pad_id)
    logp = jnp.where(state.live, logp, 0.0)
    column = (slice(None), slice(None), state.step)
    return state.replace(
        step=state.step + 1,
        last=token,
        live=state.live & (token != sampling.end_id),
        tokens=state.tokens.at[column].set(token),
        length=state.length + state.live,
        logp=state.logp.at[column].set(logp),
    )
