"""Top-k, top-p and min-p: sampling among the likelier tokens only.

What is sampled then is another distribution `mu` than the model's `pi`: `mu = pi / kept` on the
tokens that are kept, where `kept <= 1` is their mass under `pi`, and 0 on the others. Such samples
are off-policy. `Samples` holds the log-probability of a token under both, and a loss on `pi` has to
weigh tokens by `pi / mu = kept` (`ratios.truncated_weights`). Even so it never sees the tokens that
were cut: what it estimates is the part of the expectation over those that are kept.
"""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp

from guardjax.rl.transform import NEVER
from guardjax.types import Array


@dataclasses.dataclass(frozen=True)
class Truncation:
    """Which tokens may be sampled; static under `jit`. The default keeps all.

    Applied in this order, as in transformers, each to what the one before it left.

    Attributes:
      top_k: keeps the k likeliest; 0 keeps all (Fan et al., arXiv 1805.04833).
      top_p: keeps the fewest of the likeliest whose mass reaches p (Holtzman et al.,
        arXiv 1904.09751); 1 keeps all.
      min_p: keeps those at least p times as likely as the likeliest (Nguyen et al.,
        arXiv 2407.01082); 0 keeps all.
    """

    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0

    def __post_init__(self) -> None:
        if self.top_k < 0:
            raise ValueError(f"top_k must be >= 0, got {self.top_k}; 0 keeps all tokens")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be in (0, 1], got {self.top_p}; 1 keeps all tokens")
        if not 0 <= self.min_p < 1:
            raise ValueError(f"min_p must be in [0, 1), got {self.min_p}; 0 keeps all tokens")

    def __bool__(self) -> bool:
        return self != Truncation()

    def __call__(self, logits: Array) -> Array:
        """`logits` [..., V] float32 with `NEVER` in the place of those that are cut.

        Every cut is at a value, so tokens as likely as the last that is kept are kept as well.
        """
        floors = []
        if self.top_k or self.top_p < 1:
            vocab = logits.shape[-1]
            likeliest, _ = jax.lax.top_k(logits, min(self.top_k or vocab, vocab))
            if self.top_p < 1:
                probability = jax.nn.softmax(likeliest, axis=-1)
                before = jnp.cumsum(probability, axis=-1) - probability
                likeliest = jnp.where(before < self.top_p, likeliest, jnp.inf)
            floors.append(jnp.min(likeliest, axis=-1, keepdims=True))
        if self.min_p > 0:
            floors.append(jnp.max(logits, axis=-1, keepdims=True) + math.log(self.min_p))
        for floor in floors:        # this way round, so that NaN stays NaN
            logits = jnp.where(logits < floor, NEVER, logits)
        return logits
