"""Rewards: text to number, one file an idea. Correctness gates; format only breaks ties."""

from guardjax.rewards.compose import Composition, Part, Scores
from guardjax.rewards.named import COMPOSITIONS, reward_by_name
from guardjax.rewards.reward import Reward, RewardError, call_reward, from_trl, per_row

__all__ = [
    "COMPOSITIONS",
    "Composition",
    "Part",
    "Reward",
    "RewardError",
    "Scores",
    "call_reward",
    "from_trl",
    "per_row",
    "reward_by_name",
]
