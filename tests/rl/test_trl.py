"""Every preset that TRL shares, on the same tensors: advantages, weights, loss and gradients.

The goldens are TRL's own (`make_trl_goldens.py`); nothing of TRL is needed here.
"""

from __future__ import annotations

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from guardjax.rl.advantages import group_advantages
from guardjax.rl.divergence import penalised_rewards
from guardjax.rl.losses import LossParams, policy_loss
from guardjax.rl.overlong import overlong_penalty
from guardjax.rl.ratios import truncated_weights
from guardjax.train.config import RLConfig

from .trl_cases import BUFFER, CASES, GROUP, LIMIT, TOKENS, make_inputs

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "rl" / "trl.npz"


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN) as file:
        return dict(file)


@pytest.fixture(scope="module")
def arrays(golden):
    """The tensors TRL was given, as they were stored."""
    return {name.removeprefix("inputs/"): value for name, value in golden.items()
            if name.startswith("inputs/")}


def ours(case, arrays):
    """(advantages, weights or None, function of (logp, entropy, advantages) to (loss, clipped))."""
    rl = RLConfig(preset=case.preset, max_tokens=TOKENS, group_size=GROUP, **case.ours)
    mask = arrays["mask"]
    old = arrays["logp"] - case.drift * arrays["noise"]
    rewards = arrays["rewards"]
    if rl.kl_in == "reward":
        rewards = penalised_rewards(
            rewards, old, arrays["ref_logp"], mask, coef=rl.kl_coef, kind=rl.kl)
    advantages = group_advantages(rewards, scale=rl.advantage_scale, baseline=rl.baseline)
    weights = None
    if rl.correction != "none":
        weights = truncated_weights(
            old, old - arrays["sampled_gap"], mask, level=rl.correction, cap=rl.correction_cap)
    if rl.overlong == "filter":
        mask = mask & arrays["ended"][..., None]
    params = LossParams(
        ratio=rl.ratio, clip_low=rl.clip_low, clip_high=rl.clip_high, kl_coef=rl.kl_coef,
        kl=rl.kl, kl_in=rl.kl_in, aggregate=rl.aggregate, entropy_coef=rl.entropy_coef,
        max_tokens=rl.max_tokens)
    loss = functools.partial(_loss, None if case.on_policy else old, arrays["ref_logp"], mask,
                             params, weights)
    return advantages, weights, loss


def _loss(old, ref, mask, params, weights, logp, entropy, advantages):
    sums = policy_loss(logp, old, ref, advantages, mask, params, entropy, weights)
    return sums.loss / sums.count, sums.clipped


@pytest.mark.parametrize("name", CASES)
def test_agrees_with_trl(name, golden, arrays):
    """In float64, to 1e-12; advantages to the difference of the floors under the deviation."""
    case = CASES[name]
    want = {key.removeprefix(f"{name}/"): value for key, value in golden.items()
            if key.startswith(f"{name}/")}
    with jax.enable_x64(True):
        advantages, weights, loss = ours(case, jax.tree.map(jnp.asarray, arrays))
        # TRL adds 1e-4 to a deviation and we 1e-6.
        scaled = RLConfig(preset=case.preset, **case.ours).advantage_scale != "none"
        np.testing.assert_allclose(advantages, want["advantages"], rtol=3e-4 if scaled else 1e-12)
        (value, clipped), grads = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(
            arrays["logp"], arrays["entropy"], want["advantages"])
        clipped = float(clipped)
        assert float(value) == pytest.approx(float(want["loss"]), rel=1e-12)
        np.testing.assert_allclose(grads[0], want["grad"], rtol=1e-10, atol=1e-14)
        np.testing.assert_allclose(grads[1], want.get("entropy_grad", 0), rtol=1e-12, atol=1e-16)
        if weights is not None:
            reached = np.broadcast_to(want["weights"], weights.shape)[arrays["mask"]]
            np.testing.assert_allclose(weights[arrays["mask"]], reached, rtol=1e-12)
            assert 0 < (reached == reached.max()).mean() < 1, "some weights are cut, not all"
    assert (want["grad"] != 0).any() and (clipped > 0) == (not case.on_policy)


def test_overlong_penalty_agrees_with_trl(golden):
    found = overlong_penalty(np.arange(1, LIMIT + 1), max_tokens=LIMIT, buffer=BUFFER)
    np.testing.assert_allclose(found, golden["overlong"], atol=1e-7)
    assert found[0] == 0 and found[-1] == -1


def test_goldens_are_of_these_cases_and_say_who_made_them(golden, arrays):
    assert [str(v).split()[0] for v in golden["versions"]] == ["trl", "torch"]
    for name, value in make_inputs().items():
        np.testing.assert_array_equal(arrays[name], value)
