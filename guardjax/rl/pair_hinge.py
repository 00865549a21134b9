"""The two hinge losses of BP-Adapt (PolicyShiftGuard, arXiv 2607.05910) on verdict words' logits.

With s the logits of the two words at the decision token, of a picture under a policy that passes
it and under one that blocks it, and h(x) = max(0, margin - x):

    own  = h(s_own - s_other)                                          of each prompt
    pair = 1/2 [h(s_unsafe^block - s_unsafe^pass) + h(s_safe^pass - s_safe^block)]

The first wants the right word above the other one; the second wants each word's logit to move with
the policy, so that a word that is high under any policy does not pass for an answer.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from guardjax.types import Array


class PairHinge(NamedTuple):
    """Losses, each >= 0: `own` [B] of every prompt, `pair` [B / 2] of every two."""

    own: jax.Array
    pair: jax.Array


def pair_hinge(safe: Array, unsafe: Array, margin: float) -> PairHinge:
    """The losses of matched pairs.

    Args:
      safe, unsafe: [B] float, raw logits of the two words at the decision token. Raw, as
        log-probabilities have the other words' logits in them. Row 2k is the prompt that passes,
        row 2k + 1 the one that blocks.
      margin: of all hinges.
    """
    def hinge(difference: Array) -> jax.Array:
        return jnp.maximum(0.0, margin - difference)

    (safe_pass, safe_block), (unsafe_pass, unsafe_block) = (
        (logits[0::2], logits[1::2]) for logits in (safe, unsafe))
    own = jnp.stack([hinge(safe_pass - unsafe_pass), hinge(unsafe_block - safe_block)], axis=-1)
    pair = 0.5 * (hinge(unsafe_block - unsafe_pass) + hinge(safe_pass - safe_block))
    return PairHinge(own.reshape(-1), pair)
