"""Drawing one token for each of several answers, with keys that belong to the answer."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from guardjax.rl.truncation import Truncation
from guardjax.types import Array


class Drawn(NamedTuple):
    """One token an answer; all of one leading shape."""

    token: Array         # int32
    logp: Array          # float32, of the token under the distribution it was drawn from
    model_logp: Array    # float32, the same before truncation


def sample_keys(key: Array, example_index: Array, group: int) -> Array:
    """Typed keys [B, G], one a sample: `fold_in(fold_in(key, example_index), g)`."""
    if not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        key = jax.random.wrap_key_data(key)
    rows = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, example_index)
    per_group = jax.vmap(jax.random.fold_in, in_axes=(None, 0))
    return jax.vmap(per_group, in_axes=(0, None))(rows, jnp.arange(group))


def draw(keys: Array, step: Array, logits: Array, *, greedy: bool = False,
         truncation: Truncation = Truncation()) -> Drawn:
    """Draws the token of index `step` of each answer.

    Args:
      keys: typed keys of answers, with leading axes `lead`.
      step: int32 of `lead`, or [] for all; folded into the keys.
      logits: [..., V] float32, transformed; its leading axes are the first of `lead`, as answers
        that begin from one prompt share theirs.
      greedy: take the likeliest instead.
      truncation: which tokens may be drawn.
    """
    def one(key: Array, step: Array, row: Array) -> Drawn:
        cut = truncation(row)
        if greedy:
            token = jnp.argmax(row)
        else:
            token = jax.random.categorical(jax.random.fold_in(key, step), cut)
        model_logp = row[token] - jax.nn.logsumexp(row)
        logp = cut[token] - jax.nn.logsumexp(cut) if truncation else model_logp
        return Drawn(token.astype(jnp.int32), logp, model_logp)

    mapped = one
    for axis in reversed(range(keys.ndim)):
        axes = (0, 0 if step.ndim > axis else None, 0 if logits.ndim - 1 > axis else None)
        mapped = jax.vmap(mapped, in_axes=axes)
    return mapped(keys, step, logits)
