"""What is sampled: how many answers, how long, among which tokens, and how they are decoded."""

from __future__ import annotations

import dataclasses

from guardjax.rl.truncation import Truncation


@dataclasses.dataclass(frozen=True)
class SamplingParams:
    """Static under `jit`. The temperature lives in `LogitTransform` alone.

    Attributes:
      num_samples: G, answers a prompt.
      max_tokens: T, the most tokens of an answer, end token included.
      end_id: the token that ends an answer.
      pad_id: fills `tokens` beyond `length`; it may equal `end_id`.
      greedy: take the most likely token; `logp` is still that of the transformed distribution.
      truncation: top-k, top-p and min-p; they make samples off-policy, see there.
      stop: further sequences of tokens that end an answer; they are part of it.
      slots: S, answers decoded at a time, see `slots.py`; 0 decodes all B * G together.
    """

    num_samples: int
    max_tokens: int
    end_id: int
    pad_id: int
    greedy: bool = False
    truncation: Truncation = Truncation()
    stop: tuple[tuple[int, ...], ...] = ()
    slots: int = 0

    def __post_init__(self) -> None:
        if self.num_samples < 1 or self.max_tokens < 1:
            raise ValueError(
                f"num_samples ({self.num_samples}) and max_tokens ({self.max_tokens}) must be >= 1"
            )
        if self.end_id < 0 or self.pad_id < 0:
            raise ValueError(f"end_id ({self.end_id}) and pad_id ({self.pad_id}) must be ids")
        if self.greedy and self.truncation:
            raise ValueError(f"greedy takes the most likely token, where {self.truncation} has no "
                             "meaning: leave one of them out")
        if self.slots < 0:
            raise ValueError(f"slots must be >= 0, got {self.slots}; 0 decodes all together")
        for stop in self.stop:
            if not stop or min(stop) < 0:
                raise ValueError(f"a stop must be one or more token ids, got {stop}")
            if len(stop) > self.max_tokens:
                raise ValueError(f"stop {stop} has {len(stop)} tokens and an answer at most "
                                 f"{self.max_tokens}: it can never be met")

    @property
    def stops(self) -> tuple[tuple[int, ...], ...]:
        """Every sequence that ends an answer, the end token's first."""
        return ((self.end_id,), *self.stop)
