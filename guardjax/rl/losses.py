"""The clipped policy loss with a penalty to a reference, as sums and counts."""

from __future__ import annotations

import dataclasses
from typing import Literal

import flax.struct
import jax
import jax.numpy as jnp

from guardjax.types import Array

# exp(20) is 5e8: far outside any clip range, and still finite in float32.
LOG_RATIO_LIMIT = 20.0


@dataclasses.dataclass(frozen=True)
class LossParams:
    """Numbers of the loss; static under `jit`.

    Attributes:
      clip_low: the ratio is clipped below 1 - clip_low.
      clip_high: the ratio is clipped above 1 + clip_high (DAPO: 0.28).
      kl_coef: weight of the penalty to the reference, per token; 0 needs no reference.
      kl: "k3", exp(d) - d - 1 with d = ref_logp - logp (GRPO), or "k2", d^2 / 2, whose on-policy
        gradient is that of the reverse KL divergence.
      aggregate: "sequence_mean" (GRPO: mean over an answer's tokens, then over answers),
        "token_mean" (DAPO: over all tokens of the batch) or "constant" (Dr. GRPO: sum over tokens
        divided by `max_tokens`, then mean over answers).
      entropy_coef: weight of the entropy bonus, per token.
      max_tokens: L_max, the divisor of "constant".
    """

    clip_low: float = 0.2
    clip_high: float = 0.2
    kl_coef: float = 0.0
    kl: Literal["k3", "k2"] = "k3"
    aggregate: Literal["sequence_mean", "token_mean", "constant"] = "sequence_mean"
    entropy_coef: float = 0.0
    max_tokens: int | None = None

    def __post_init__(self) -> None:
        if not (0 <= self.clip_low <= 1 and self.clip_high >= 0):
            raise ValueError(f"clip range -{self.clip_low} +{self.clip_high} makes no sense")
        if self.kl not in ("k3", "k2"):
            raise ValueError(f"unknown kl {self.kl!r}")
        if self.aggregate not in ("sequence_mean", "token_mean", "constant"):
            raise ValueError(f"unknown aggregate {self.aggregate!r}")
        if self.aggregate == "constant" and not (self.max_tokens and self.max_tokens > 0):
            raise ValueError('aggregate "constant" needs max_tokens')
        if self.kl_coef < 0 or self.entropy_coef < 0:
            raise ValueError("kl_coef and entropy_coef must not be negative")


@flax.struct.dataclass
class LossSums:
    """Sums and their denominators, all scalars; add those of several batches, then divide.

    `loss`, `objective`, `kl_penalty` and `entropy_bonus` are over `count`, the rest over `tokens`.
    """

    loss: Array            # to minimise: -(objective) + kl_penalty - entropy_bonus
    count: Array           # answers, or tokens under "token_mean"
    objective: Array       # clipped surrogate
    kl_penalty: Array      # kl_coef * KL as it enters the loss
    entropy_bonus: Array   # entropy_coef * entropy as it enters the loss
    tokens: Array          # answer tokens
    kl: Array              # KL estimate summed over tokens
    clipped: Array         # tokens whose gradient the clip takes away
    ratio: Array           # probability ratio summed over tokens
    entropy: Array         # summed over tokens
    nonfinite: Array       # tokens whose log-ratio to old or reference is NaN or infinite

    def __add__(self, other: LossSums) -> LossSums:
        return jax.tree.map(jnp.add, self, other)

    def metrics(self) -> dict[str, tuple[Array, Array]]:
        """(sum, count) by name."""
        return {
            "loss": (self.loss, self.count),
            "objective": (self.objective, self.count),
            "kl": (self.kl, self.tokens),
            "clip_fraction": (self.clipped, self.tokens),
            "ratio": (self.ratio, self.tokens),
            "entropy": (self.entropy, self.tokens),
            "nonfinite_fraction": (self.nonfinite, self.tokens),
        }


def policy_loss(
    logp: Array,
    old_logp: Array | None,
    ref_logp: Array | None,
    advantages: Array,
    mask: Array,
    params: LossParams,
    entropy: Array | None = None,
) -> LossSums:
    """PPO's clipped surrogate on group advantages (GRPO, arXiv 2402.03300, eq. 3, and kin).

    Per token: `min(rho * A, clip(rho, 1 - clip_low, 1 + clip_high) * A) - kl_coef * KL`, with
    `rho = exp(logp - old_logp)`. The mean loss is `loss / count`; accumulate both.

    Log-ratios are limited to [-20, 20]: an infinite one (a token that one side holds impossible)
    gives a finite loss and, beyond the limit, no gradient. NaN is never replaced: it makes the
    loss NaN, so that the step can be skipped and counted. Both show in `nonfinite`. Values under
    a False mask never matter, NaN included.

    Args:
      logp: [B, G, T] under the parameters that are trained.
      old_logp: [B, G, T] when sampled; no gradient. None takes `stop_gradient(logp)`, exact for
        one update a rollout: the ratio is 1 and the gradient is A * grad logp.
      ref_logp: [B, G, T] under the reference; no gradient. Needed if `kl_coef` > 0; measured, if
        given, even at 0.
      advantages: [B, G], no gradient.
      mask: [B, G, T] bool, True on answer tokens. Answers without any are not counted.
      params: the numbers.
      entropy: [B, G, T], needed if `entropy_coef` > 0.

    Raises:
      ValueError: a term has a weight but its input is missing.
    """
    if params.kl_coef > 0 and ref_logp is None:
        raise ValueError("kl_coef > 0 needs ref_logp")
    if params.entropy_coef > 0 and entropy is None:
        raise ValueError("entropy_coef > 0 needs entropy")

    # Masked before any arithmetic: where() alone would let 0 * NaN into the gradient.
    logp = jnp.where(mask, logp, 0)
    old = logp if old_logp is None else jnp.where(mask, old_logp, 0)
    old = jax.lax.stop_gradient(old)
    advantage = jax.lax.stop_gradient(jnp.broadcast_to(advantages[..., None], mask.shape))
    advantage = jnp.where(mask, advantage, 0)

    log_ratio = logp - old
    nonfinite = ~jnp.isfinite(log_ratio)
    ratio = jnp.exp(jnp.clip(log_ratio, -LOG_RATIO_LIMIT, LOG_RATIO_LIMIT))
    limited = jnp.clip(ratio, 1 - params.clip_low, 1 + params.clip_high)
    surrogate = jnp.minimum(ratio * advantage, limited * advantage)
    clipped = ((ratio < 1 - params.clip_low) & (advantage < 0)) | (
        (ratio > 1 + params.clip_high) & (advantage > 0)
    )

    divergence = jnp.zeros_like(logp)
    if ref_logp is not None:
        gap = jax.lax.stop_gradient(jnp.where(mask, ref_logp, 0)) - logp
        nonfinite = nonfinite | ~jnp.isfinite(gap)
        divergence = _divergence(gap, params.kl)
    bonus = jnp.zeros_like(logp) if entropy is None else jnp.where(mask, entropy, 0)

    objective = _aggregate(surrogate, mask, params)
    kl_penalty = params.kl_coef * _aggregate(divergence, mask, params)
    entropy_bonus = params.entropy_coef * _aggregate(bonus, mask, params)
    tokens = jnp.sum(mask, dtype=logp.dtype)
    answers = jnp.sum(jnp.any(mask, axis=-1), dtype=logp.dtype)

    def over_tokens(values: Array) -> Array:
        return jax.lax.stop_gradient(jnp.sum(jnp.where(mask, values, 0), dtype=logp.dtype))

    return LossSums(
        loss=kl_penalty - objective - entropy_bonus,
        count=tokens if params.aggregate == "token_mean" else answers,
        objective=objective,
        kl_penalty=kl_penalty,
        entropy_bonus=entropy_bonus,
        tokens=tokens,
        kl=over_tokens(divergence),
        clipped=over_tokens(clipped),
        ratio=over_tokens(ratio),
        entropy=over_tokens(bonus),
        nonfinite=over_tokens(nonfinite),
    )


def _divergence(gap: Array, kind: str) -> Array:
    """Per-token KL estimate from `gap = ref_logp - logp`."""
    gap = jnp.clip(gap, -LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)
    if kind == "k2":
        return jnp.square(gap) / 2
    return jnp.expm1(gap) - gap


def _aggregate(values: Array, mask: Array, params: LossParams) -> Array:
    """Sum over the batch, so that dividing by `count` gives the aggregate asked for."""
    per_answer = jnp.sum(jnp.where(mask, values, 0), axis=-1)
    if params.aggregate == "sequence_mean":
        per_answer = per_answer / jnp.maximum(jnp.sum(mask, axis=-1), 1)
    elif params.aggregate == "constant":
        per_answer = per_answer / params.max_tokens
    return jnp.sum(per_answer)
