"""Rewards of a rollout, where every process asks for those of its own rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from guardjax.rewards.compose import Composition, Scores
from guardjax.rewards.named import COUNTERPART_REWARDS
from guardjax.rewards.reward import NonFiniteRewardError, RewardError
from guardjax.train import hosts
from guardjax.train.sharding import Placement
from guardjax.types import PolicyExample


def score_rows(reward: Composition, examples: Sequence[PolicyExample], texts: Sequence[str],
               placement: Placement | None, *, seconds: float) -> Scores:
    """Scores of all completions, on every process alike.

    A reward that holds examples against each other is asked for all rows by every process:
    counterparts may lie anywhere in the batch.

    Args:
      examples: n = B * G examples, row b * G + g, equal everywhere.
      texts: their completions.
      placement: says which rows are this process's; None is one process.
      seconds: what a part of the reward may take.

    Raises:
      RewardError: on every process, if the reward failed on any; `NonFiniteRewardError` if it
        gave a number that is NaN or infinite.
    """
    around = any(part.reward in COUNTERPART_REWARDS for part in reward.parts)
    if placement is None or hosts.num_processes() == 1 or around:
        return reward.score(examples, texts, seconds=seconds)
    rows = placement.rows(len(texts))

    def score() -> Scores | NonFiniteRewardError:
        try:
            return reward.score(examples[rows], texts[rows], seconds=seconds)
        except NonFiniteRewardError as error:   # no failure: all skip this step
            return error

    try:
        own = hosts.together(score)
    except hosts.PeerError as error:
        raise RewardError("of another process", None, str(error)) from None
    bad = isinstance(own, NonFiniteRewardError)
    if said := "; ".join(filter(None, hosts.gather_texts(str(own) if bad else ""))):
        raise own if bad else NonFiniteRewardError("of another process", None, said)

    def whole(array: np.ndarray) -> np.ndarray:
        return hosts.gather_rows(array, rows, len(texts))

    return Scores(whole(own.value), whole(own.applies), {
        name: (whole(value), whole(applies)) for name, (value, applies) in own.parts.items()})
