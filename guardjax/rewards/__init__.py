"""Rewards: text to number, one file an idea. Correctness gates; format only breaks ties."""

from guardjax.rewards.compose import Composition, Part, Scores
from guardjax.rewards.named import COMPOSITIONS, reward_by_name
from guardjax.rewards.own import as_reward, own_reward
from guardjax.rewards.reward import Reward, RewardError, call_reward, per_row
from guardjax.rewards.trl import from_trl

__all__ = [
    "COMPOSITIONS",
    "Composition",
    "Part",
    "Reward",
    "RewardError",
    "Scores",
    "as_reward",
    "call_reward",
    "from_trl",
    "own_reward",
    "per_row",
    "reward_by_name",
]
