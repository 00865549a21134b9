"""Probability ratios between the trained policy and the one that sampled."""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp

from guardjax.rl.divergence import LOG_RATIO_LIMIT
from guardjax.types import Array

Ratio = Literal["token", "sequence", "sequence_token", "answer", "stop_gradient"]
RATIOS: tuple[Ratio, ...] = ("token", "sequence", "sequence_token", "answer", "stop_gradient")
Level = Literal["token", "sequence"]


def policy_ratio(logp: Array, log_ratio: Array, mask: Array, kind: Ratio) -> Array:
    """The ratio rho that meets the advantage, [B, G, T].

    | kind | value at token t of an answer of T_i tokens | source |
    |---|---|---|
    | "token", "stop_gradient" | `exp(log_ratio_t)` | PPO; CISPO (arXiv 2506.13585, eq. 4) |
    | "sequence" | `s = exp(sum_t log_ratio_t / T_i)` | GSPO (2507.18071, eq. 7) |
    | "sequence_token" | `sg[s] * exp(logp_t - sg[logp_t])` | GSPO-token (2507.18071, eq. 14) |
    | "answer" | `exp(sum_t log_ratio_t)` | RLOO on whole answers (2402.14740), as TRL has it |

    Logarithms are limited to [-20, 20], of each token or of the whole answer.

    Args:
      logp: [B, G, T], 0 where `mask` is False.
      log_ratio: [B, G, T] `logp - old_logp`, 0 where `mask` is False.
      mask: [B, G, T] bool.
      kind: a name of the table.
    """
    if kind in ("token", "stop_gradient"):
        return jnp.exp(jnp.clip(log_ratio, -LOG_RATIO_LIMIT, LOG_RATIO_LIMIT))
    whole = jnp.sum(log_ratio, axis=-1, keepdims=True)
    if kind != "answer":
        whole = whole / jnp.maximum(jnp.sum(mask, axis=-1, keepdims=True), 1)
    ratio = jnp.exp(jnp.clip(whole, -LOG_RATIO_LIMIT, LOG_RATIO_LIMIT))
    ratio = jnp.broadcast_to(ratio, mask.shape)
    if kind == "sequence_token":
        # The value of exp is 1, its gradient that of logp; an infinite logp would make it NaN.
        finite = jnp.where(jnp.isinf(logp), 0, logp)
        return jax.lax.stop_gradient(ratio) * jnp.exp(finite - jax.lax.stop_gradient(finite))
    return ratio


def truncated_weights(
    old_logp: Array, sampled_logp: Array, mask: Array, *, level: Level, cap: float
) -> Array:
    """Truncated importance weights [B, G, T] for answers that another program sampled.

    `min(exp(old_logp - sampled_logp), cap)` a token, or with `level="sequence"` the same of the
    answer's summed log-probabilities at all its tokens (Ionides, "Truncated importance sampling",
    2008; token and sequence levels as in TRL). 1 where `mask` is False; no gradient.

    Args:
      old_logp: [B, G, T] of the sampled tokens, by the program that trains.
      sampled_logp: [B, G, T] as the sampler gave them.
      mask: [B, G, T] bool, True on answer tokens.
      level: "token" or "sequence".
      cap: largest weight, > 0.
    """
    gap = jnp.where(mask, old_logp, 0) - jnp.where(mask, sampled_logp, 0)
    if level == "sequence":
        gap = jnp.broadcast_to(jnp.sum(gap, axis=-1, keepdims=True), mask.shape)
    weights = jnp.exp(jnp.clip(gap, -LOG_RATIO_LIMIT, LOG_RATIO_LIMIT))
    return jax.lax.stop_gradient(jnp.where(mask, jnp.minimum(weights, cap), 1))
