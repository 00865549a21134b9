"""The one transform from a model's logits to the distribution that is sampled and trained.

Sampling, log-probabilities and loss all call it, so that a sampled log-probability equals the
recomputed one. It has only a temperature and a fixed set of allowed tokens. Top-k, top-p and min-p
depend on the parameters and would have to be frozen per sample; they are the sampler's alone
(`truncation.py`) and make samples off-policy.
"""

from __future__ import annotations

from collections.abc import Iterable

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from guardjax.types import Array

# Finite on purpose: exp(NEVER - max) is exactly 0 and 0 * NEVER is 0, where minus infinity would
# turn entropies and gradients into NaN.
NEVER = -1e30


@flax.struct.dataclass
class LogitTransform:
    """Temperature and allowed tokens. A pytree: other values do not compile anew.

    Attributes:
      temperature: scalar > 0 that divides the logits.
      allowed: [V] bool, True keeps a token; None keeps all. `V` is the width of the logits.
    """

    temperature: Array | float = 1.0
    allowed: Array | None = None

    def __call__(self, logits: Array) -> Array:
        """Transformed logits `[..., V]` float32; a token that is not allowed gets `NEVER`.

        Raises:
          ValueError: `allowed` is not as wide as the logits.
        """
        scaled = jnp.asarray(logits, jnp.float32) / self.temperature
        if self.allowed is None:
            return scaled
        if self.allowed.shape != scaled.shape[-1:]:
            raise ValueError(
                f"allowed has shape {self.allowed.shape}, but the logits have a vocabulary of "
                f"{scaled.shape[-1]}"
            )
        return jnp.where(self.allowed, scaled, NEVER)

    def part(self, start: Array, size: int) -> LogitTransform:
        """The same for the `size` tokens of the vocabulary from `start` on."""
        if self.allowed is None:
            return self
        return self.replace(allowed=jax.lax.dynamic_slice_in_dim(self.allowed, start, size))


def make_transform(
    vocab_size: int, *, temperature: float = 1.0, blocked: Iterable[int] = ()
) -> LogitTransform:
    """A checked transform that blocks some tokens: image placeholders, reserved and unused ids.

    Args:
      vocab_size: width of the logits, which may exceed the tokenizer's vocabulary.
      temperature: > 0; for the most likely token use `SamplingParams.greedy`.
      blocked: ids that may never be sampled.

    Raises:
      ValueError: the temperature is not a positive number, an id lies outside the vocabulary,
        or nothing is left to sample.
    """
    if not (np.isfinite(temperature) and temperature > 0):
        raise ValueError(
            f"temperature must be a positive number, not {temperature}; use greedy=True for 0"
        )
    allowed = np.ones(vocab_size, bool)
    for token in blocked:
        if not 0 <= token < vocab_size:
            raise ValueError(f"blocked token {token} lies outside a vocabulary of {vocab_size}")
        allowed[token] = False
    if not allowed.any():
        raise ValueError("every token is blocked")
    return LogitTransform(temperature=jnp.float32(temperature), allowed=jnp.asarray(allowed))
