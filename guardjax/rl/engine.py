"""What reinforcement learning asks of an engine that samples in another process.

An engine holds a copy of the weights and answers from it. Its log-probabilities are its own: other
kernels sum in another order, so samples are off-policy by rounding and want `rl.correction`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Protocol

import jax
import numpy as np

from guardjax.rl.draw import sample_keys
from guardjax.rl.sampling_params import SamplingParams
from guardjax.types import Array, PolicyExample, PromptBatch, Samples


class EngineError(RuntimeError):
    """An engine that cannot be trusted or reached; the message names it and what to do."""


@dataclasses.dataclass(frozen=True)
class Decoding:
    """All that decides what is sampled, beside prompt and seed.

    Attributes:
      sampling: how many answers, how long, where they end. `truncation` and `slots` are the local
        sampler's: an engine returns one log-probability a token, and truncation needs two.
      temperature: divides the logits; 1 where `sampling.greedy`.
      blocked: ids that may never be sampled.
    """

    sampling: SamplingParams
    temperature: float = 1.0
    blocked: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.sampling.truncation or self.sampling.slots:
            raise ValueError("an engine decodes without truncation and slots, got "
                             f"{self.sampling.truncation} and slots={self.sampling.slots}")
        if self.sampling.greedy and self.temperature != 1:
            raise ValueError(f"greedy answers have temperature 1, got {self.temperature}: engines "
                             "do not divide the logits of greedy answers")


class Engine(Protocol):
    """Samples from weights that it was handed."""

    def load(self, params: Any, step: int) -> None:
        """Hands over `params`: samples come from these from now on.

        Raises:
          EngineError: they did not arrive.
        """
        ...

    def sample(self, prompts: PromptBatch, examples: Sequence[PolicyExample], seeds: np.ndarray,
               decoding: Decoding, step: int) -> Samples:
        """G answers to each of B prompts, on the host.

        Args:
          prompts: B prompts, whose ids are what the engine must see.
          examples: whose pictures they show.
          seeds: [B, G] int64, see `answer_seeds`.
          decoding: what is sampled.
          step: named in errors.

        Raises:
          EngineError: an answer that is wrong or missing, with nothing kept of the others.
        """
        ...

    def close(self) -> None:
        """Frees what was only kept for the engine."""
        ...


def answer_seeds(key: Array, example_index: Array, group: int) -> np.ndarray:
    """[B, G] int64 seeds below 2**31, one an answer, of the keys that the local sampler uses."""
    bits = jax.vmap(jax.vmap(jax.random.bits))(sample_keys(key, example_index, group))
    return np.asarray(bits >> 1).astype(np.int64)
