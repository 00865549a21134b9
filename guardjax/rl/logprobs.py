"""Log-probabilities of given answers: one forward over prompt and answers, nothing repeated."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from guardjax.rl.head_logprobs import head_logprobs
from guardjax.rl.model_fns import ModelFns, Params, encode_vision
from guardjax.rl.answers import answer_segment, completion_mask, last_hidden
from guardjax.rl.transform import LogitTransform
from guardjax.types import Array, PromptBatch

# Up to so many bytes of float32 logits all of them are made at once. Above it that is slower on a
# CPU, as they no longer stay in its caches, and takes about four times their size.
PLAIN_BYTES = 2**24


class AnswerStates(NamedTuple):
    """The hidden states that predict answers: `before` [B, D] every answer's first token, `after`
    [B, G, T - 1, D] the others; None where T is 1."""

    before: Array
    after: Array | None

    def at(self, position: int) -> Array:
        """[B, G, D], or [B, 1, D] for the first token: what predicts the token at `position`."""
        return self.before[:, None] if position == 0 else self.after[:, :, position - 1]


def answer_states(
    fns: ModelFns, params: Params, prompts: PromptBatch, tokens: Array, length: Array,
    features: Array | None = None,
) -> AnswerStates:
    """One forward pass over prompts and answers; arguments are those of `token_logprobs`."""
    batch, group, max_tokens = tokens.shape
    vision = encode_vision(fns, params, prompts, features)
    segments = [*prompts.segments]
    if max_tokens > 1:
        # A token is an input only if the answer goes on after it.
        mask = completion_mask(length, max_tokens)
        segments.append(answer_segment(prompts, tokens[..., :-1], mask[..., 1:], 0))
    hidden, _ = fns.forward(params, tuple(segments), vision, None)
    before = last_hidden(hidden[len(prompts.segments) - 1], prompts.prompt.mask)
    after = None
    if max_tokens > 1:
        after = hidden[-1].reshape(batch, group, max_tokens - 1, -1)
    return AnswerStates(before, after)


def token_logprobs(
    fns: ModelFns,
    params: Params,
    prompts: PromptBatch,
    tokens: Array,
    length: Array,
    transform: LogitTransform,
    *,
    token_chunk: int | None = None,
    vocab_chunk: int | None = None,
    features: Array | None = None,
    states: AnswerStates | None = None,
) -> tuple[Array, Array]:
    """Log-probability of every answer token, and the entropy of the distribution it came from.

    Token 0 is predicted by the prompt's last hidden state, shared by the group; token t by the
    hidden state of answer token t - 1. Hence T - 1 answer tokens go through the model.

    The logits [B, G, T, V] are made at once where they take at most `PLAIN_BYTES` (16 MiB) in
    float32, counted over all devices, or the model has no `head`. Above it they never exist, in
    either direction: see `head_logprobs`. A chunk that is given decides instead.

    Args:
      fns: the model.
      params: its parameters.
      prompts: B prompts, which may branch from trunks.
      tokens: [B, G, T] int32 answers.
      length: [B, G] int32, real tokens of each answer.
      transform: the transform that the answers were sampled with.
      token_chunk: answer tokens of each prompt whose logits exist at once, recomputed in the
        backward pass, so that the largest array is [B, token_chunk, V]. The chunks run along
        G * T and leave the (sharded) B alone.
      vocab_chunk: tokens of the vocabulary whose logits exist at once; the largest array is then
        [B, token_chunk, vocab_chunk].
      features: image features as of `encode_vision`, to save encoding the pictures again.
      states: of the same prompts and answers, to save the forward pass.

    Returns:
      (logp [B, G, T], entropy [B, G, T]), float32, in nats, both 0 beyond `length`. A token that
      the transform does not allow has a log-probability of about `transform.NEVER`.

    Raises:
      ValueError: a chunk is not positive, or `vocab_chunk` is given and the model has no `head`.
    """
    in_chunks = _in_chunks(fns, params, tokens.shape, token_chunk, vocab_chunk)
    batch, group, max_tokens = tokens.shape
    mask = completion_mask(length, max_tokens)
    before, after = states or answer_states(fns, params, prompts, tokens, length, features)
    if not in_chunks:
        logp, entropy = _score_answers(fns, params, before, after, tokens, transform, token_chunk)
    else:
        # The prompt's state stands G times among T * G others: one pass over the head for all.
        joined = jnp.broadcast_to(before[:, None, None], (batch, group, 1, before.shape[-1]))
        if max_tokens > 1:
            joined = jnp.concatenate([joined, after], axis=2)
        found = head_logprobs(
            fns.head(params), joined.reshape(batch, group * max_tokens, -1),
            tokens.reshape(batch, -1), transform, token_chunk=token_chunk, vocab_chunk=vocab_chunk)
        logp, entropy = (each.reshape(tokens.shape) for each in found)
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
    (*_, hidden), _ = fns.forward(params, prompts.segments, vision, None)
    return fns.unembed(params, last_hidden(hidden, prompts.prompt.mask))


def _in_chunks(fns: ModelFns, params: Params, shape: tuple[int, ...], token_chunk: int | None,
               vocab_chunk: int | None) -> bool:
    """Whether the logits of answers of `shape` [B, G, T] are to be made in chunks of V too."""
    for name, chunk in (("token_chunk", token_chunk), ("vocab_chunk", vocab_chunk)):
        if chunk is not None and chunk < 1:
            raise ValueError(f"{name} must be at least 1, not {chunk}")
    if vocab_chunk is not None and fns.head is None:
        raise ValueError("vocab_chunk is given, but the model has no head")
    if fns.head is None or vocab_chunk is not None or token_chunk is not None:
        return vocab_chunk is not None
    head = jax.eval_shape(fns.head, params)
    return 4 * math.prod(shape) * head.weight.shape[head.vocab_axis] > PLAIN_BYTES


def _score(logits: Array, targets: Array) -> tuple[Array, Array]:
    """Log-probabilities [..., k] of `targets` [..., k], and entropy [...], of `logits` [..., V]."""
    normaliser = jax.nn.logsumexp(logits, axis=-1, keepdims=True)
    logp = jnp.take_along_axis(logits, targets, axis=-1) - normaliser
    log_all = logits - normaliser
    return logp, -jnp.sum(jnp.exp(log_all) * log_all, axis=-1)


def _score_answers(
    fns: ModelFns,
    params: Params,
    before: Array,
    after: Array | None,
    tokens: Array,
    transform: LogitTransform,
    token_chunk: int | None,
) -> tuple[Array, Array]:
    """(logp, entropy), both [B, G, T], with the logits of all the vocabulary.

    `before` [B, D] predicts the first token of every answer, `after` [B, G, T - 1, D] the others.
    """
    batch, group, max_tokens = tokens.shape
    first_logits = transform(fns.unembed(params, before))
    first_logp, first_entropy = _score(first_logits, tokens[..., 0])
    logp = first_logp[..., None]
    entropy = jnp.broadcast_to(first_entropy[:, None, None], logp.shape)
    if after is not None:
        rows = after.reshape(batch, group * (max_tokens - 1), -1)
        targets = tokens[..., 1:].reshape(batch, -1)
        rest = _score_rows(fns, params, rows, targets, transform, token_chunk)
        shape = (batch, group, max_tokens - 1)
        logp = jnp.concatenate([logp, rest[0].reshape(shape)], axis=-1)
        entropy = jnp.concatenate([entropy, rest[1].reshape(shape)], axis=-1)
    return logp, entropy


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
