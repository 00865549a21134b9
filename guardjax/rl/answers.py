"""How answers join their prompts: where a prompt ends, how long an answer is, where it stands."""

from __future__ import annotations

import jax.numpy as jnp

from guardjax.types import Array, PromptBatch, Segment


def last_hidden(hidden: Array, mask: Array) -> Array:
    """The hidden state that predicts the first answer token.

    Args:
      hidden: [B, P, D], or [I, M, P, D] of branches.
      mask: [B, P] bool, True on prompt tokens, or [I, M, P]. A row without any gives position 0.

    Returns:
      [B, D], the hidden state of each row's last real token.
    """
    hidden, mask = hidden.reshape(-1, *hidden.shape[-2:]), mask.reshape(-1, mask.shape[-1])
    places = jnp.arange(mask.shape[-1], dtype=jnp.int32)
    last = jnp.max(jnp.where(mask, places, 0), axis=-1)
    return jnp.take_along_axis(hidden, last[:, None, None], axis=1)[:, 0]


def completion_mask(length: Array, max_tokens: int) -> Array:
    """`[..., max_tokens]` bool, True on the first `length` tokens.

    Masks come from lengths and never from `tokens != pad`: pad may equal the end token.
    """
    return jnp.arange(max_tokens, dtype=jnp.int32) < jnp.asarray(length)[..., None]


def answer_segment(prompts: PromptBatch, tokens: Array, mask: Array, first: Array | int) -> Segment:
    """Answer tokens as a segment that continues each prompt, of lead [B, G] or [I, M, G].

    Args:
      prompts: B prompts; token t of an answer stands at `next_pos + t` on all three axes.
      tokens: [B, G, T] int32.
      mask: [B, G, T] bool.
      first: index t of `tokens[..., 0]` in its answer.
    """
    steps = first + jnp.arange(tokens.shape[-1], dtype=jnp.int32)
    shape = (*prompts.lead, *tokens.shape[1:])
    places = jnp.asarray(prompts.next_pos)[..., None, None] + steps
    positions = jnp.broadcast_to(places[..., None], (*shape, 3)).astype(jnp.int32)
    return Segment(tokens=tokens.reshape(shape), positions=positions, mask=mask.reshape(shape))


def slot_segment(next_pos: Array, token: Array, live: Array, step: Array) -> Segment:
    """One token of each of S answers, each at a place of its own in its answer.

    Args:
      next_pos: [S] int32, the position of the first token of each answer.
      token: [S] int32.
      live: [S] bool, False where a slot has nothing to decode.
      step: [S] int32, index t of `token` in its answer.
    """
    places = (jnp.asarray(next_pos) + step)[:, None, None]
    positions = jnp.broadcast_to(places, (*token.shape, 1, 3)).astype(jnp.int32)
    return Segment(tokens=token[:, None], positions=positions, mask=live[:, None])
