"""Estimates of the KL divergence to the reference, one number a token, and where they enter.

With `d = ref_logp - logp` (Schulman, "Approximating KL divergence", 2020):

| kl | estimate | |
|---|---|---|
| "k1" | `-d` | no bias, may be negative; as a loss its on-policy gradient is 0 in expectation |
| "k2" | `d^2 / 2` | its on-policy gradient is that of the reverse KL divergence |
| "k3" | `exp(d) - d - 1` | no bias, never negative; GRPO's (arXiv 2402.03300, eq. 4) |
"""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp

from guardjax.types import Array

# exp(20) is 5e8: far outside any clip range, and still finite in float32.
LOG_RATIO_LIMIT = 20.0

Kind = Literal["k1", "k2", "k3"]


def divergence(gap: Array, kind: Kind) -> Array:
    """Estimate a token, in the shape of `gap = ref_logp - logp`, which is limited to [-20, 20].

    Raises:
      ValueError: an unknown kind.
    """
    gap = jnp.clip(gap, -LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)
    if kind == "k1":
        return -gap
    if kind == "k2":
        return jnp.square(gap) / 2
    if kind == "k3":
        return jnp.expm1(gap) - gap
    raise ValueError(f"unknown kl {kind!r}")


def penalised_rewards(
    rewards: Array, old_logp: Array, ref_logp: Array, mask: Array, *, coef: float, kind: Kind
) -> Array:
    """Rewards [B, G] less `coef` times the divergence summed over the answer; no gradient.

    With k1 this is RLOO's reward (arXiv 2402.14740, eq. 3; TRL's too). With k2 and k3 it is our
    instantiation of the same.

    Args:
      rewards: [B, G] float32.
      old_logp, ref_logp: [B, G, T], of the policy that sampled and of the reference.
      mask: [B, G, T] bool, True on answer tokens.
      coef: weight of the penalty.
      kind: the estimate.
    """
    gap = jnp.where(mask, ref_logp, 0) - jnp.where(mask, old_logp, 0)
    penalty = jnp.sum(jnp.where(mask, divergence(gap, kind), 0), axis=-1)
    return rewards - coef * jax.lax.stop_gradient(penalty)
