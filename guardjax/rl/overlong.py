"""Answers that reach the limit of their length: a penalty that grows towards it."""

from __future__ import annotations

import numpy as np

from guardjax.types import Array


def overlong_penalty(length: Array, *, max_tokens: int, buffer: int) -> np.ndarray:
    """What DAPO (arXiv 2503.14476, eq. 13) adds to the reward: 0 down to -1, in the shape given.

    0 up to `max_tokens - buffer` tokens, then falling evenly to -1 at `max_tokens`, which an
    answer that the limit cut has reached.

    Args:
      length: tokens of each answer, the end token included.
      max_tokens: L_max, the limit.
      buffer: L_cache, tokens over which the penalty grows (DAPO: 4,096 of 20,480).

    Raises:
      ValueError: `buffer` is not within 1 and `max_tokens`.
    """
    if not 1 <= buffer <= max_tokens:
        raise ValueError(f"buffer must be in 1..{max_tokens} (max_tokens), got {buffer}")
    over = np.asarray(length, np.float32) - (max_tokens - buffer)
    return -np.clip(over / np.float32(buffer), 0, 1)
