"""Group-relative advantages: how much better an answer is than its siblings."""

from __future__ import annotations

from typing import Literal

import jax.numpy as jnp

from guardjax.types import Array

# Rewards of one group that differ by less are called equal: rounding must not become a signal.
EQUAL_WITHIN = 1e-6
# Added to the standard deviation, which is never 0 where it divides.
STD_FLOOR = 1e-6

Scale = Literal["group_std", "none", "batch_std", "centred_std"]
Baseline = Literal["mean", "leave_one_out"]


def group_advantages(
    rewards: Array,
    *,
    scale: Scale = "none",
    baseline: Baseline = "mean",
    valid: Array | None = None,
) -> Array:
    """Advantages [B, G] of rewards [B, G].

    | scale | baseline | method |
    |---|---|---|
    | "group_std" | "mean" | GRPO (arXiv 2402.03300), DAPO: `(R - mean_G) / std_G` |
    | "none" | "mean" | Dr. GRPO (2503.20783): `R - mean_G` |
    | "none" | "leave_one_out" | RLOO (2402.14740): `R - mean of the others` |
    | "batch_std" | "mean" | TRL's and ms-swift's "batch": `(R - mean_G) / std` of all rewards |
    | "centred_std" | "mean" | REINFORCE++-baseline (2501.03262): divided by std of `R - mean_G` |

    The deviations of group and batch are the sample ones (divided by n - 1), as in the common
    trainers; that of the centred rewards, whose mean is 0, is their root mean square. Group scaling
    lifts nearly unanimous groups (one success in eight gets +2.5) and cancels any reward gap that
    all siblings share.

    Args:
      rewards: [B, G] float. NaN is not hidden: its group becomes NaN.
      scale: what the centred rewards are divided by.
      baseline: what is subtracted.
      valid: [B, G] bool, False takes an answer out (a reward that did not apply, a filler row):
        it enters no mean and its advantage is 0.

    Returns:
      [B, G], exactly 0 in groups whose rewards are all equal (and in groups of one).

    Raises:
      ValueError: an unknown scale or baseline.
    """
    if scale not in ("group_std", "none", "batch_std", "centred_std"):
        raise ValueError(f"unknown advantage scale {scale!r}")
    if baseline not in ("mean", "leave_one_out"):
        raise ValueError(f"unknown baseline {baseline!r}")
    rewards = jnp.asarray(rewards)
    valid = jnp.ones(rewards.shape, bool) if valid is None else jnp.asarray(valid)
    flat = zero_variance(rewards, valid)[:, None]
    keep = valid & ~flat
    num = jnp.sum(valid, axis=-1, keepdims=True).astype(rewards.dtype)
    total = jnp.sum(jnp.where(valid, rewards, 0), axis=-1, keepdims=True)
    centred = jnp.where(keep, rewards - total / jnp.maximum(num, 1), 0)
    # A group that is not flat has at least two answers, so the divisors below are safe there.
    others = jnp.maximum(num - 1, 1)
    squares = jnp.sum(jnp.square(centred), axis=-1, keepdims=True)
    if baseline == "leave_one_out":
        centred = centred * num / others
    if scale == "group_std":
        return centred / (jnp.sqrt(squares / others) + STD_FLOOR)
    if scale == "batch_std":
        return centred / (_batch_std(rewards, valid) + STD_FLOOR)
    if scale == "centred_std":
        mean_square = jnp.sum(jnp.square(centred)) / jnp.maximum(jnp.sum(valid), 1)
        return centred / (jnp.sqrt(mean_square) + STD_FLOOR)
    return centred


def zero_variance(rewards: Array, valid: Array | None = None) -> Array:
    """[B] bool, True where a group has no signal: all (valid) rewards equal, or fewer than two.

    The sum over B is the count to log, and what dynamic sampling (DAPO, arXiv 2503.14476)
    refills. A group with a NaN is not called flat.
    """
    rewards = jnp.asarray(rewards)
    valid = jnp.ones(rewards.shape, bool) if valid is None else jnp.asarray(valid)
    highest = jnp.max(jnp.where(valid, rewards, -jnp.inf), axis=-1)
    lowest = jnp.min(jnp.where(valid, rewards, jnp.inf), axis=-1)
    return highest - lowest <= EQUAL_WITHIN


def _batch_std(rewards: Array, valid: Array) -> Array:
    """Sample standard deviation [] of all valid rewards."""
    count = jnp.sum(valid).astype(rewards.dtype)
    mean = jnp.sum(jnp.where(valid, rewards, 0)) / jnp.maximum(count, 1)
    squares = jnp.sum(jnp.square(jnp.where(valid, rewards - mean, 0)))
    return jnp.sqrt(squares / jnp.maximum(count - 1, 1))
