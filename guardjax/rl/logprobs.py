"""Log-probabilities of given answers: one forward over prompt and answers, nothing repeated."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from guardjax.rl.model_fns import ModelFns, Params, encode_vision
from guardjax.rl.answers import answer_segment, completion_mask, last_hidden
from guardjax.rl.transform import LogitTransform
from guardjax.types import Array, PromptBatch


def token_logprobs(
    fns: ModelFns,
    params: Params,
    prompts: PromptBatch,
    tokens: Array,
    length: Array,
    transform: LogitTransform,
    *,
    token_chunk: int | None = None,
    features: Array | None = None,
) -> tuple[Array, Array]:
    """Log-probability of every answer token, and the entropy of the distribution it came from.

    Token 0 is predicted by the prompt's last hidden state, shared by the group; token t by the
    hidden state of answer token t - 1. Hence T - 1 answer tokens go through the model.

    Args:
      fns: the model.
      params: its parameters.
      prompts: B prompts.
      tokens: [B, G, T] int32 answers.
      length: [B, G] int32, real tokens of each answer.
      transform: the transform that the answers were sampled with.
      token_chunk: answer tokens of each prompt whose logits exist at once, recomputed in the
        backward pass, so that the largest array is [B, token_chunk, V]; None makes all of
        [B, G * (T - 1), V]. The chunks run along G * T and leave the (sharded) B alone.
      features: [B, U, D] image features, to save encoding the pictures again.

    Returns:
      (logp [B, G, T], entropy [B, G, T]), float32, in nats, both 0 beyond `length`. A token that
      the transform does not allow has a log-probability of about `transform.NEVER`.

    Raises:
      ValueError: `token_chunk` is not positive.
    """
    if token_chunk is not None and token_chunk < 1:
        raise ValueError(f"token_chunk must be at least 1, not {token_chunk}")
    batch, group, max_tokens = tokens.shape
    mask = completion_mask(length, max_tokens)
    vision = encode_vision(fns, params, prompts, features)

    segments = [prompts.prompt]
    if max_tokens > 1:
        # A token is an input only if the answer goes on after it.
        segments.append(answer_segment(prompts, tokens[..., :-1], mask[..., 1:], 0))
    hidden, _ = fns.forward(params, tuple(segments), vision, None)

    first_logits = transform(fns.unembed(params, last_hidden(hidden[0], prompts.prompt.mask)))
    first_logp, first_entropy = _score(first_logits, tokens[..., 0])
    logp = first_logp[..., None]
    entropy = jnp.broadcast_to(first_entropy[:, None, None], logp.shape)
    if max_tokens > 1:
        rows = hidden[1].reshape(batch, group * (max_tokens - 1), -1)
        targets = tokens[..., 1:].reshape(batch, -1)
        rest = _score_rows(fns, params, rows, targets, transform, token_chunk)
        shape = (batch, group, max_tokens - 1)
        logp = jnp.concatenate([logp, rest[0].reshape(shape)], axis=-1)
        entropy = jnp.concatenate([entropy, rest[1].reshape(shape)], axis=-1)
    return jnp.where(mask, logp, 0.0), jnp.where(mask, entropy, 0.0)


def next_token_logits(
    fns: ModelFns,
    params: Params,
    prompts: PromptBatch,
    *,
    features: Array | None = None,
) -> Array:
    """Untransformed logits [B, V] float32 of the first answer token (the decision token)."""
    vision = encode_vision(fns, params, prompts, features)
    (hidden,), _ = fns.forward(params, (prompts.prompt,), vision, None)
    return fns.unembed(params, last_hidden(hidden, prompts.prompt.mask))


def _score(logits: Array, targets: Array) -> tuple[Array, Array]:
    """Log-probabilities [..., k] of `targets` [..., k], and entropy [...], of `logits` [..., V]."""
    normaliser = jax.nn.logsumexp(logits, axis=-1, keepdims=True)
    logp = jnp.take_along_axis(logits, targets, axis=-1) - normaliser
    log_all = logits - normaliser
    return logp, -jnp.sum(jnp.exp(log_all) * log_all, axis=-1)


def _score_rows(
    fns: ModelFns,
    params: Params,
    hidden: Array,
    targets: Array,
    transform: LogitTransform,
    token_chunk: int | None,
) -> tuple[Array, Array]:
    """(logp, entropy), both [B, n], of `targets` [B, n] given `hidden` [B, n, D]."""

    def score(hidden: Array, targets: Array) -> tuple[Array, Array]:
        logits = transform(fns.unembed(params, hidden))
        logp, entropy = _score(logits, targets[..., None])
        return logp[..., 0], entropy

    batch, num = targets.shape
    if token_chunk is None or token_chunk >= num:
        return score(hidden, targets)
    num_chunks = -(-num // token_chunk)
    padding = num_chunks * token_chunk - num

    def split(array: Array) -> Array:
        widths = [(0, 0), (0, padding)] + [(0, 0)] * (array.ndim - 2)
        padded = jnp.pad(array, widths)
        chunks = padded.reshape(batch, num_chunks, token_chunk, *array.shape[2:])
        return jnp.moveaxis(chunks, 1, 0)

    body = jax.checkpoint(score)
    pieces = jax.lax.map(lambda chunk: body(*chunk), (split(hidden), split(targets)))
    join = lambda piece: jnp.moveaxis(piece, 0, 1).reshape(batch, -1)[:, :num]
    return join(pieces[0]), join(pieces[1])
