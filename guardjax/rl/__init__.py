"""Reinforcement learning from verifiable rewards. Takes callables, not models."""

from guardjax.rl.advantages import group_advantages, zero_variance
from guardjax.rl.answers import completion_mask
from guardjax.rl.divergence import penalised_rewards
from guardjax.rl.exact import expected_reward, expected_reward_of_answers
from guardjax.rl.head_logprobs import head_logprobs
from guardjax.rl.logprobs import next_token_logits, token_logprobs
from guardjax.rl.losses import LossParams, LossSums, policy_loss
from guardjax.rl.model_fns import ModelFns
from guardjax.rl.overlong import overlong_penalty
from guardjax.rl.ratios import policy_ratio, truncated_weights
from guardjax.rl.sampling import SamplingParams, generate
from guardjax.rl.transform import LogitTransform, make_transform

__all__ = [
    "LogitTransform",
    "LossParams",
    "LossSums",
    "ModelFns",
    "SamplingParams",
    "completion_mask",
    "expected_reward",
    "expected_reward_of_answers",
    "generate",
    "group_advantages",
    "head_logprobs",
    "make_transform",
    "next_token_logits",
    "overlong_penalty",
    "penalised_rewards",
    "policy_loss",
    "policy_ratio",
    "token_logprobs",
    "truncated_weights",
    "zero_variance",
]
