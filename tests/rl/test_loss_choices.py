"""Ratios, estimates of the divergence and weights against a few lines of float64 NumPy.

Gradients are finite differences of the same lines; what is behind a stop-gradient is held still.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from guardjax.rl.divergence import divergence, penalised_rewards
from guardjax.rl.losses import LossParams, policy_loss
from guardjax.rl.overlong import overlong_penalty
from guardjax.rl.ratios import RATIOS, policy_ratio, truncated_weights

SHAPE = (2, 3, 4)
KLS = {"k1": lambda d: -d, "k2": lambda d: d**2 / 2, "k3": lambda d: np.exp(d) - d - 1}
PARAMS = [
    LossParams(ratio=ratio, kl=kl, aggregate=aggregate, clip_low=0.02, clip_high=0.03, max_tokens=4,
               kl_coef=0.1, entropy_coef=0.05, kl_in="reward" if ratio == "answer" else "loss")
    for ratio, kl, aggregate in zip(
        RATIOS, ("k1", "k1", "k2", "k1", "k3"),
        ("token_mean", "sequence_mean", "sequence_mean", "constant", "token_mean"))
]


def make_inputs(seed=0):
    rng = np.random.default_rng(seed)
    logp = -rng.exponential(1.0, SHAPE)
    length = np.array([[4, 2, 1], [3, 0, 4]])
    return {
        "logp": logp, "old_logp": logp + rng.normal(0, 0.3, SHAPE),
        "ref_logp": logp + rng.normal(0, 0.3, SHAPE), "advantages": rng.normal(size=SHAPE[:2]),
        "mask": np.arange(SHAPE[-1]) < length[..., None],
        "entropy": rng.exponential(1.0, SHAPE), "weights": rng.uniform(0.5, 1.5, SHAPE),
    }


def oracle(logp, old_logp, ref_logp, advantages, mask, entropy, weights, params, held):
    """The mean loss; `held` is `logp` behind the stop-gradients."""
    count = np.maximum(mask.sum(-1, keepdims=True), 1)
    moving, still = (np.where(mask, new - old_logp, 0) for new in (logp, held))
    rho = {"token": np.exp(moving), "answer": np.exp(moving.sum(-1, keepdims=True)),
           "sequence": np.exp(moving.sum(-1, keepdims=True) / count),
           "sequence_token": np.exp(still.sum(-1, keepdims=True) / count) * np.exp(logp - held),
           "stop_gradient": np.exp(still)}[params.ratio]
    advantages = advantages[..., None]
    kept = np.clip(rho, 1 - params.clip_low, 1 + params.clip_high)
    gain = np.minimum(rho * advantages, kept * advantages)
    if params.ratio == "stop_gradient":
        gain = kept * advantages * logp
    coef = params.kl_coef * (params.kl_in == "loss")
    loss = -weights * gain + coef * KLS[params.kl](ref_logp - logp) - params.entropy_coef * entropy
    loss = np.where(mask, loss, 0)
    answers = mask.any(-1).sum()
    return {"token_mean": loss.sum() / mask.sum(), "constant": loss.sum() / 4 / answers,
            "sequence_mean": (loss / count).sum() / answers}[params.aggregate]


@functools.cache
def compiled(choices):
    """One program for several kinds of loss: ((mean loss, sums), gradient by logp) of each."""
    def one(params, inputs):
        def loss(logp):
            sums = policy_loss(**{**inputs, "logp": logp}, params=params)
            return sums.loss / sums.count, sums
        return jax.value_and_grad(loss, has_aux=True)(inputs["logp"])
    return jax.jit(lambda inputs: {params.ratio: one(params, inputs) for params in choices})


def run(inputs, choices=PARAMS):
    """By the name of the ratio."""
    return jax.device_get(compiled(tuple(choices))(inputs))


@pytest.fixture(scope="module")
def in_float64():
    with jax.enable_x64(True):
        return run(make_inputs())


@pytest.mark.parametrize("params", PARAMS, ids=lambda p: f"{p.ratio}-{p.kl}-{p.aggregate}")
def test_value_and_gradient_agree_with_numpy(params, in_float64):
    inputs = make_inputs()
    logp, rest = inputs["logp"], {k: v for k, v in inputs.items() if k != "logp"}
    (value, sums), grad = in_float64[params.ratio]
    mean = functools.partial(oracle, **rest, params=params, held=logp)
    assert value == pytest.approx(mean(logp), rel=1e-12)
    assert sums.clipped > 0 and sums.kl != 0
    for i in np.ndindex(SHAPE):
        step = np.zeros(SHAPE)
        step[i] = 1e-6
        assert grad[i] == pytest.approx((mean(logp + step) - mean(logp - step)) / 2e-6, abs=1e-8)


def test_gspo_and_gspo_token_have_one_gradient():
    """With one advantage and weight for the whole answer (arXiv 2507.18071, sec. 4.3)."""
    sequence = PARAMS[RATIOS.index("sequence")]
    inputs = make_inputs(3)
    inputs["weights"] = np.broadcast_to(inputs["weights"][..., :1], SHAPE)
    with jax.enable_x64(True):
        one, other = run(inputs, [sequence, dataclasses.replace(sequence, ratio="sequence_token")]
                         ).values()
    np.testing.assert_allclose(one[1], other[1], rtol=1e-12, atol=1e-15)
    assert float(one[0][0]) == pytest.approx(float(other[0][0]), rel=1e-12)


def test_groups_of_zero_variance_have_exactly_no_gradient():
    """Also off the policy: without penalty and bonus the loss does not move them."""
    inputs = make_inputs(1)
    inputs["advantages"][1] = 0.0
    plain = [dataclasses.replace(each, kl_coef=0.0, entropy_coef=0.0) for each in PARAMS]
    for _, grad in run(inputs, plain).values():
        assert (grad[1] == 0).all() and (grad[0] != 0).any()


def test_what_is_masked_never_matters():
    inputs = make_inputs(2)
    mask = inputs["mask"]
    spoiled = {k: v if k in ("mask", "advantages") else np.where(mask, v, np.nan)
               for k, v in inputs.items()}
    jax.tree.map(np.testing.assert_array_equal, run(inputs), run(spoiled))


def test_an_impossible_old_token_gives_a_finite_gradient():
    inputs = make_inputs(4)
    inputs["old_logp"][0, 0, 1] = -np.inf
    for (value, sums), grad in run(inputs).values():
        assert np.isfinite(value) and np.isfinite(grad).all() and sums.nonfinite == 1


def test_on_the_policy_every_ratio_gives_the_plain_policy_gradient():
    """Up to the aggregation: RLOO's ratio is of the whole answer and is not divided by length."""
    inputs = make_inputs(5) | {"old_logp": None, "weights": None, "entropy": None}
    mask, advantages = inputs["mask"], inputs["advantages"][..., None]
    length = np.maximum(mask.sum(-1, keepdims=True), 1)
    for ratio, (_, grad) in run(inputs, [LossParams(ratio=ratio) for ratio in RATIOS]).items():
        want = -advantages * mask / (1 if ratio == "answer" else length) / mask.any(-1).sum()
        np.testing.assert_allclose(grad, want, rtol=1e-5, atol=1e-7)


def test_k1_and_k3_estimate_the_divergence_and_k2_is_near():
    """Means over samples of p against KL(p || q)."""
    p, q = np.array([0.5, 0.3, 0.2]), np.array([0.4, 0.35, 0.25])
    draws = np.random.default_rng(0).choice(3, p=p, size=400_000)
    gap = np.log(q / p)[draws].astype(np.float32)
    want = (p * np.log(p / q)).sum()
    for kind, near in (("k1", 0.05), ("k2", 0.1), ("k3", 0.05)):
        assert float(divergence(gap, kind).mean()) == pytest.approx(want, rel=near)
    with pytest.raises(ValueError, match="k4"):
        divergence(gap, "k4")


@pytest.mark.parametrize("kind", KLS)
def test_the_penalty_in_the_reward_is_a_sum_over_the_answer(kind):
    inputs = make_inputs(6)
    old, ref, mask = (inputs[name] for name in ("old_logp", "ref_logp", "mask"))
    rewards = np.arange(6.0).reshape(SHAPE[:2])
    found = penalised_rewards(rewards, jnp.where(mask, old, jnp.nan), ref, mask, coef=0.2,
                              kind=kind)
    want = rewards - 0.2 * np.where(mask, KLS[kind](ref - old), 0).sum(-1)
    np.testing.assert_allclose(found, want, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("level", ["token", "sequence"])
def test_weights_are_cut_above_and_have_no_gradient(level):
    inputs = make_inputs(7)
    old, sampled, mask = inputs["old_logp"], inputs["ref_logp"], inputs["mask"]
    weigh = functools.partial(truncated_weights, mask=mask, level=level, cap=1.2)
    gap = np.where(mask, old - sampled, 0)
    gap = gap if level == "token" else np.broadcast_to(gap.sum(-1, keepdims=True), SHAPE)
    want = np.where(mask, np.minimum(np.exp(gap), 1.2), 1)
    np.testing.assert_allclose(weigh(old, sampled), want, rtol=1e-6)
    assert (jax.grad(lambda x: weigh(x, sampled).sum())(old) == 0).all()
    assert (np.asarray(weigh(old, old)) == 1).all()


def test_ratio_of_an_empty_answer_is_one():
    ratios = jax.jit(lambda zeros, mask: [
        policy_ratio(zeros, zeros, mask, kind) for kind in RATIOS])
    found = ratios(np.zeros((1, 1, 3), np.float32), np.zeros((1, 1, 3), bool))
    assert all((np.asarray(each) == 1).all() for each in found)


def test_overlong_penalty_of_a_bad_buffer_is_refused():
    for buffer in (0, 9):
        with pytest.raises(ValueError, match=r"1\.\.8"):
            overlong_penalty(np.ones(3), max_tokens=8, buffer=buffer)
