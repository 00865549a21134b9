"""Log-probabilities and entropies from hidden states, with no array of tokens by vocabulary.

Tokens and vocabulary are walked in chunks. Forward keeps a running maximum and two sums for each
token (the online softmax of Milakov and Gimelshein, arXiv 1805.02867, with a second sum for the
entropy, which is ours); backward makes each block of logits again from hidden states and head. The
vocabulary is the outer walk in both, so that each part of the head is fetched once.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp

from guardjax.rl.head_shards import (hold_chunk, hold_gradient, hold_head, hold_width,
                                     rows_a_chip)
from guardjax.rl.transform import NEVER, LogitTransform
from guardjax.types import Array, Head

# A block of logits has on a chip about so many tokens and tokens of the vocabulary: 33 MB in
# float32.
ROWS = 1024
VOCAB_CHUNK = 8192


def head_logprobs(
    head: Head,
    hidden: Array,
    targets: Array,
    transform: LogitTransform,
    *,
    token_chunk: int | None = None,
    vocab_chunk: int | None = None,
) -> tuple[Array, Array]:
    """Log-probability of each target, and the entropy of the distribution it came from.

    Differentiable once, by reverse mode, in `head.weight` and `hidden`; the gradient of the weight
    is summed over tokens in float32. No gradient reaches the transform.

    Args:
      head: how hidden states become logits.
      hidden: [B, n, D].
      targets: [B, n] int32.
      transform: from logits to the distribution, token by token.
      token_chunk: of the n tokens of each row, how many have logits at once; about 1,024 over
        the rows that a chip has.
      vocab_chunk: of the V tokens, how many have logits at once; about 8,192.

    Returns:
      (logp [B, n], entropy [B, n]), float32, in nats.

    Raises:
      ValueError: a chunk is not positive, or `transform` is not as wide as the head.
    """
    batch, num, _ = hidden.shape
    vocab = head.weight.shape[head.vocab_axis]
    if transform.allowed is not None and transform.allowed.shape != (vocab,):
        raise ValueError(f"allowed has shape {transform.allowed.shape}, but the head has a "
                         f"vocabulary of {vocab}")
    if token_chunk is None:
        token_chunk = max(1, ROWS // rows_a_chip(batch))
    vocab_chunk = _even(vocab, VOCAB_CHUNK) if vocab_chunk is None else vocab_chunk
    if token_chunk < 1 or vocab_chunk < 1:
        raise ValueError(f"chunks must be at least 1, not {token_chunk} and {vocab_chunk}")
    token_chunk, vocab_chunk = min(token_chunk, num), min(vocab_chunk, vocab)
    padding = -num % token_chunk
    pad = lambda array: jnp.pad(array, [(0, 0), (0, padding)] + [(0, 0)] * (array.ndim - 2))
    split = lambda array: jnp.moveaxis(
        pad(array).reshape(batch, -1, token_chunk, *array.shape[2:]), 1, 0)
    found = _logprobs(vocab_chunk, head, split(hidden), split(targets), transform)
    return tuple(jnp.moveaxis(each, 0, 1).reshape(batch, -1)[:, :num] for each in found)


def _even(size: int, chunk: int) -> int:
    """The least multiple of 128 that covers `size` in as many pieces as `chunk` does."""
    pieces = -(-size // chunk)
    return -(-size // (128 * pieces)) * 128


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _logprobs(vocab_chunk: int, head: Head, hidden: Array, targets: Array,
              transform: LogitTransform) -> tuple[Array, Array]:
    """(logp, entropy), both [c, B, t], of `hidden` [c, B, t, D] and `targets` [c, B, t]."""
    return _forward(vocab_chunk, head, hidden, targets, transform)[0]


def _forward(vocab_chunk: int, head: Head, hidden: Array, targets: Array,
             transform: LogitTransform) -> tuple[tuple[Array, Array], Any]:
    kept, head = head, hold_head(head)

    def add(sums: tuple[Array, ...], index: Array) -> tuple[tuple[Array, ...], None]:
        part = _Part(head, transform, index, vocab_chunk)

        def of_tokens(chunk: tuple[Array, ...]) -> tuple[Array, ...]:
            rows, wanted, highest, total, weighed, chosen = chunk
            logits = part.logits(rows)
            higher = jnp.maximum(highest, jnp.max(logits, axis=-1))
            shifted = logits - higher[..., None]
            exp = jnp.exp(shifted)
            # Both sums are of exp(l - highest): move them to the new maximum, then add.
            drop = highest - higher
            scale = jnp.exp(drop)
            weighed = (weighed + drop * total) * scale + jnp.sum(exp * shifted, axis=-1)
            total = total * scale + jnp.sum(exp, axis=-1)
            place = jnp.clip(wanted - part.start, 0, vocab_chunk - 1)
            here = jnp.take_along_axis(logits, place[..., None], axis=-1)[..., 0]
            chosen = jnp.where(part.holds(wanted), here, chosen)
            return higher, total, weighed, chosen

        return jax.lax.map(of_tokens, (hidden, targets, *sums)), None

    zeros = jnp.zeros(targets.shape, jnp.float32)
    # Finite, as `NEVER` is: a difference of two infinities would be NaN.
    start = (jnp.full(targets.shape, NEVER, jnp.float32), zeros, zeros, zeros)
    (highest, total, weighed, chosen), _ = jax.lax.scan(add, start, _indices(head, vocab_chunk))
    normaliser = highest + jnp.log(total)
    logp, entropy = chosen - normaliser, jnp.log(total) - weighed / total
    return (logp, entropy), (kept, hidden, targets, transform, normaliser, entropy)


def _backward(vocab_chunk: int, kept: Any, cotangents: tuple[Array, Array]) -> tuple[Any, ...]:
    given, hidden, targets, transform, normaliser, entropy = kept
    head = hold_head(given)
    chunks = jnp.arange(hidden.shape[0], dtype=jnp.int32)

    def of_vocabulary(grads: tuple[Array, Array], index: Array) -> tuple[Any, None]:
        d_hidden, d_weight = grads[0], hold_width(grads[1], head.vocab_axis)
        part = _Part(head, transform, index, vocab_chunk)

        def of_tokens(grads: tuple[Array, Array], each: Any) -> tuple[Any, None]:
            d_hidden, d_part = grads
            chunk, rows, wanted, shift, spread, (d_logp, d_entropy) = each
            logits, pull = jax.vjp(part.transformed, part.raw(rows))
            log_all = logits - shift[..., None]
            probability = jnp.exp(log_all)
            d_logits = jnp.where(part.ids == wanted[..., None], d_logp[..., None], 0)
            # d logp = onehot - p, and d entropy = -p (log p + entropy).
            d_logits = d_logits - probability * (
                d_logp[..., None] + d_entropy[..., None] * (log_all + spread[..., None]))
            (d_raw,) = pull(d_logits)
            d_rows, d_more = part.products(rows, d_raw)
            d_hidden = jax.lax.dynamic_update_index_in_dim(
                d_hidden, d_hidden[chunk] + d_rows, chunk, axis=0)
            return (d_hidden, d_part + d_more), None

        none = jnp.zeros(part.weight.shape, jnp.float32)
        (d_hidden, d_part), _ = jax.lax.scan(
            of_tokens, (d_hidden, none),
            (chunks, hidden, targets, normaliser, entropy, cotangents))
        d_part = hold_gradient(d_part, head.vocab_axis)
        # The last part may overlap the one before; what it shares with it has a gradient of 0.
        before = jax.lax.dynamic_slice_in_dim(
            d_weight, part.start, vocab_chunk, axis=head.vocab_axis)
        d_weight = jax.lax.dynamic_update_slice_in_dim(
            d_weight, before + d_part.astype(d_weight.dtype), part.start, axis=head.vocab_axis)
        return (d_hidden, hold_width(d_weight, head.vocab_axis)), None

    start = (jnp.zeros(hidden.shape, jnp.float32),
             hold_width(jnp.zeros_like(given.weight), head.vocab_axis))
    (d_hidden, d_weight), _ = jax.lax.scan(of_vocabulary, start, _indices(head, vocab_chunk))
    d_weight = hold_width(d_weight, head.vocab_axis)
    return given.replace(weight=d_weight), d_hidden.astype(hidden.dtype), None, None


_logprobs.defvjp(_forward, _backward)


def _indices(head: Head, vocab_chunk: int) -> Array:
    return jnp.arange(-(-head.weight.shape[head.vocab_axis] // vocab_chunk), dtype=jnp.int32)


class _Part:
    """A run of the vocabulary: the `index`-th, moved back where it would reach over the end."""

    def __init__(self, head: Head, transform: LogitTransform, index: Array, size: int):
        vocab = head.weight.shape[head.vocab_axis]
        self._head, self._first = head, index * size
        self.start = jnp.minimum(self._first, vocab - size)
        self.ids = self.start + jnp.arange(size, dtype=jnp.int32)
        self.weight = hold_chunk(jax.lax.dynamic_slice_in_dim(
            head.weight, self.start, size, axis=head.vocab_axis), head.vocab_axis)
        self._transform = transform.part(self.start, size)
        self._overlaps = vocab % size != 0

    def raw(self, rows: Array) -> Array:
        """Logits [B, t, size] float32 of hidden states [B, t, D], before the transform."""
        return self._head.product(rows, self.weight)

    def transformed(self, raw: Array) -> Array:
        """Logits after the transform; `NEVER` where an earlier part has the token."""
        logits = self._transform(raw)
        return jnp.where(self.ids >= self._first, logits, NEVER) if self._overlaps else logits

    def logits(self, rows: Array) -> Array:
        """Both."""
        return self.transformed(self.raw(rows))

    def holds(self, tokens: Array) -> Array:
        """Bool: whether each token is of this part and no earlier one."""
        return (tokens >= self._first) & (tokens < self._first + self.ids.shape[0])

    def products(self, rows: Array, d_raw: Array) -> tuple[Array, Array]:
        """Gradients of hidden states and of the part's weight, float32, from that of `raw`."""
        d_raw = d_raw.astype(self._head.dtype)
        axes = ((2,), (self._head.vocab_axis,))
        d_rows = jax.lax.dot_general(d_raw, self.weight.astype(d_raw.dtype), (axes, ((), ())),
                                     preferred_element_type=jnp.float32)
        rows = rows.astype(d_raw.dtype)
        first, second = (d_raw, rows) if self._head.vocab_axis == 0 else (rows, d_raw)
        d_weight = jax.lax.dot_general(first, second, (((0, 1), (0, 1)), ((), ())),
                                       preferred_element_type=jnp.float32)
        return d_rows, d_weight
