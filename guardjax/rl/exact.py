"""The exact expected reward and its gradient, where the answers that matter can be listed.

For a one-token verdict the actions are {safe, unsafe, anything else}: the expectation takes one
forward pass, no sampling, and has no groups of zero variance. With two actions its gradient is
(R_right - R_wrong) * p * (1 - p) * grad(logit gap): cross-entropy whose weight vanishes on items
the model is sure of. It is the control that tells reinforcement learning from its loss's shape.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from guardjax.types import Array


def expected_reward(
    logits: Array, action_ids: Array, rewards: Array, other_reward: Array | float
) -> Array:
    """Expected reward [B] of the decision token, differentiable in `logits`.

    Args:
      logits: [B, V], after the `LogitTransform`.
      action_ids: [A] int32, the tokens that are verdicts, all different.
      rewards: [B, A], what each verdict earns; no gradient.
      other_reward: what any other token earns, a number or [B].
    """
    logp = jax.nn.log_softmax(logits, axis=-1)
    return expected_reward_of_answers(
        jnp.take(logp, jnp.asarray(action_ids), axis=-1), rewards, other_reward
    )


def expected_reward_of_answers(
    answer_logp: Array, rewards: Array, other_reward: Array | float
) -> Array:
    """Expected reward [B] over listed whole answers, differentiable in `answer_logp`.

    The listed answers go through `token_logprobs` as the G completions of a prompt, so that
    verdicts of several tokens, with their rules, can be trained exactly too.

    Args:
      answer_logp: [B, A], log-probability of each listed answer (its end token included); the
        answers are all different.
      rewards: [B, A], what each earns; no gradient.
      other_reward: what everything unlisted earns, a number or [B].
    """
    # sum_a p_a r_a + (1 - sum_a p_a) r_other, without the cancellation in the bracket.
    other = jax.lax.stop_gradient(jnp.asarray(other_reward, answer_logp.dtype))
    gain = jax.lax.stop_gradient(rewards) - other[..., None]
    return other + jnp.sum(jnp.exp(answer_logp) * gain, axis=-1)
