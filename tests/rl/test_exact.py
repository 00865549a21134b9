"""The exact expected reward: its value, its gradient, and the sampled gradient it replaces."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from guardjax.rl.advantages import group_advantages
from guardjax.rl.exact import expected_reward, expected_reward_of_answers
from guardjax.rl.logprobs import next_token_logits, token_logprobs
from guardjax.rl.losses import LossParams, policy_loss
from guardjax.rl.transform import make_transform

ACTIONS = np.array([3, 5], np.int32)
REWARDS = np.array([[1.0, 0.1], [0.1, 1.0]], np.float32)


def test_value_is_the_sum_over_all_tokens():
    logits = np.random.default_rng(0).normal(size=(2, 7)).astype(np.float32)
    for other in (0.0, 0.3, np.array([0.0, 0.3], np.float32)):
        table = np.broadcast_to(np.reshape(other, (-1, 1)), (2, 7)).astype(np.float64).copy()
        table[:, ACTIONS] = REWARDS
        p = np.exp(logits.astype(np.float64))
        p /= p.sum(-1, keepdims=True)
        found = jax.jit(expected_reward)(logits, ACTIONS, REWARDS, other)
        np.testing.assert_allclose(found, (p * table).sum(-1), rtol=1e-6)


def test_gradient_for_two_actions():
    """(R+ - R-) p (1 - p) on the logit gap, nothing elsewhere."""
    logits = jnp.array([[0.3, -0.8]])
    rewards = np.array([[1.0, 0.1]], np.float32)
    value = lambda x: expected_reward(x, np.arange(2), rewards, 0.0).sum()
    grad = jax.jit(jax.grad(value))(logits)
    p = float(jax.nn.sigmoid(1.1))
    np.testing.assert_allclose(grad, [[0.9 * p * (1 - p), -0.9 * p * (1 - p)]], rtol=1e-5)


def test_gradient_agrees_with_finite_differences():
    with jax.enable_x64(True):
        logits = np.random.default_rng(1).normal(size=(2, 7))
        value = jax.jit(lambda x: expected_reward(x, ACTIONS, REWARDS, 0.05).sum())
        grad = np.asarray(jax.jit(jax.grad(value))(jnp.asarray(logits)))
        for i in np.ndindex(2, 7):
            bump = np.zeros((2, 7))
            bump[i] = 1e-6
            want = (value(logits + bump) - value(logits - bump)) / 2e-6
            assert grad[i] == pytest.approx(float(want), abs=1e-8)


def test_is_the_mean_of_the_sampled_gradient():
    """GRPO without std, averaged over many one-token samples, points the same way as the exact."""
    logits = jnp.array([[0.5, -0.5, 0.2, 0.0]])
    table = jnp.array([0.1, 1.0, 0.0, 0.0])
    exact = jax.jit(jax.grad(
        lambda x: expected_reward(x, np.arange(2), table[None, :2], 0.0).sum()
    ))(logits)
    draws = jax.random.categorical(jax.random.key(0), logits[0], shape=(20_000, 1, 8))

    def sampled(x):
        logp = jax.nn.log_softmax(x[0])[draws[:, 0]][..., None]
        advantages = group_advantages(table[draws[:, 0]], baseline="leave_one_out")
        sums = policy_loss(logp, None, None, advantages, jnp.ones(logp.shape, bool), LossParams())
        return -sums.loss / sums.count

    np.testing.assert_allclose(jax.jit(jax.grad(sampled))(logits), exact, atol=5e-3)


def test_of_answers_equals_the_one_token_form(toy):
    prompts = toy.make_prompts()
    transform = make_transform(toy.vocab, blocked=[toy.image])
    tokens = jnp.broadcast_to(ACTIONS[:, None], (3, 2, 1))
    rewards = np.tile(REWARDS[:1], (3, 1))

    def by_answers(params):
        ones = jnp.ones((3, 2), jnp.int32)
        logp, _ = token_logprobs(toy.fns, params, prompts, tokens, ones, transform)
        return expected_reward_of_answers(logp.sum(-1), rewards, 0.2).sum()

    def by_token(params):
        logits = transform(next_token_logits(toy.fns, params, prompts))
        return expected_reward(logits, ACTIONS, rewards, 0.2).sum()

    a, b = (jax.jit(jax.value_and_grad(f))(toy.params) for f in (by_answers, by_token))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6), a, b)
