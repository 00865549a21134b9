"""The policy loss of GRPO and its kin, as sums and counts: one function, choices that combine.

What is not here: advantages (`advantages.py`), the estimates of the divergence (`divergence.py`),
the ratios (`ratios.py`). Names of whole methods are presets of the config
(`train/config/presets.py`).
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import flax.struct
import jax
import jax.numpy as jnp

from guardjax.rl.divergence import Kind, divergence as divergence_of
from guardjax.rl.ratios import RATIOS, Ratio, policy_ratio
from guardjax.types import Array


@dataclasses.dataclass(frozen=True)
class LossParams:
    """Choices and numbers of the loss; static under `jit`.

    Attributes:
      ratio: what meets the advantage, see `ratios.policy_ratio`. All are clipped; "stop_gradient"
        (CISPO, arXiv 2506.13585) takes the clipped ratio as a weight of `advantage * logp`, so
        that no token loses its gradient.
      clip_low: the ratio is clipped below 1 - clip_low; 1 clips nothing.
      clip_high: the ratio is clipped above 1 + clip_high (DAPO: 0.28).
      kl_coef: weight of the penalty to the reference, per token; 0 needs no reference.
      kl: "k1", "k2" or "k3", see `divergence.py`.
      kl_in: "loss" adds the penalty here; with "reward" it was taken off the rewards before
        (`divergence.penalised_rewards`), and here it is only measured.
      aggregate: "sequence_mean" (GRPO: mean over an answer's tokens, then over answers),
        "token_mean" (DAPO: over all tokens of the batch) or "constant" (Dr. GRPO: sum over tokens
        divided by `max_tokens`, then mean over answers).
      entropy_coef: weight of the entropy bonus, per token.
      max_tokens: L_max, the divisor of "constant".
    """

    ratio: Ratio = "token"
    clip_low: float = 0.2
    clip_high: float = 0.2
    kl_coef: float = 0.0
    kl: Kind = "k3"
    kl_in: Literal["loss", "reward"] = "loss"
    aggregate: Literal["sequence_mean", "token_mean", "constant"] = "sequence_mean"
    entropy_coef: float = 0.0
    max_tokens: int | None = None

    def __post_init__(self) -> None:
        if not (0 <= self.clip_low <= 1 and self.clip_high >= 0):
            raise ValueError(f"clip range -{self.clip_low} +{self.clip_high} makes no sense")
        if self.ratio not in RATIOS:
            raise ValueError(f"unknown ratio {self.ratio!r}")
        if self.kl not in ("k1", "k2", "k3"):
            raise ValueError(f"unknown kl {self.kl!r}")
        if self.kl_in not in ("loss", "reward"):
            raise ValueError(f"unknown kl_in {self.kl_in!r}")
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
    clipped: Array         # tokens whose gradient the clip takes away ("stop_gradient": lowers)
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
    weights: Array | None = None,
) -> LossSums:
    """PPO's clipped surrogate on group advantages (GRPO, arXiv 2402.03300, eq. 3, and kin).

    Per token: `w * min(rho * A, clip(rho, 1 - clip_low, 1 + clip_high) * A) - kl_coef * KL`, with
    `rho = exp(logp - old_logp)` or another ratio; under "stop_gradient"
    `w * sg[clip(rho, ...)] * A * logp - kl_coef * KL`. The mean loss is `loss / count`; accumulate
    both.

    Log-ratios are limited to [-20, 20]: an infinite one (a token that one side holds impossible)
    gives a finite loss and, beyond the limit, no gradient. NaN is never replaced: it makes the
    loss NaN, so that the step can be skipped and counted. Both show in `nonfinite`. Under
    "stop_gradient" the loss holds `logp` itself: where that is infinite, so is the loss. Values
    under a False mask never matter, NaN included.

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
      weights: [B, G, T] w, no gradient (`ratios.truncated_weights`); None is 1.

    Raises:
      ValueError: a term has a weight but its input is missing.
    """
    if params.kl_coef > 0 and params.kl_in == "loss" and ref_logp is None:
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
    ratio = policy_ratio(logp, log_ratio, mask, params.ratio)
    limited = jnp.clip(ratio, 1 - params.clip_low, 1 + params.clip_high)
    if params.ratio == "stop_gradient":
        surrogate = jax.lax.stop_gradient(limited) * advantage * logp
    else:
        surrogate = jnp.minimum(ratio * advantage, limited * advantage)
    if weights is not None:
        surrogate = surrogate * jax.lax.stop_gradient(jnp.where(mask, weights, 0))
    clipped = ((ratio < 1 - params.clip_low) & (advantage < 0)) | (
        (ratio > 1 + params.clip_high) & (advantage > 0)
    )

    divergence = jnp.zeros_like(logp)
    if ref_logp is not None:
        gap = jax.lax.stop_gradient(jnp.where(mask, ref_logp, 0)) - logp
        nonfinite = nonfinite | ~jnp.isfinite(gap)
        divergence = divergence_of(gap, params.kl)
    bonus = jnp.zeros_like(logp) if entropy is None else jnp.where(mask, entropy, 0)

    objective = _aggregate(surrogate, mask, params)
    kl_coef = params.kl_coef if params.kl_in == "loss" else 0.0
    kl_penalty = kl_coef * _aggregate(divergence, mask, params)
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


def _aggregate(values: Array, mask: Array, params: LossParams) -> Array:
    """Sum over the batch, so that dividing by `count` gives the aggregate asked for."""
    per_answer = jnp.sum(jnp.where(mask, values, 0), axis=-1)
    if params.aggregate == "sequence_mean":
        per_answer = per_answer / jnp.maximum(jnp.sum(mask, axis=-1), 1)
    elif params.aggregate == "constant":
        per_answer = per_answer / params.max_tokens
    return jnp.sum(per_answer)
