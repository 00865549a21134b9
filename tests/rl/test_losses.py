"""The policy loss against float64 NumPy, its gradient against finite differences."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from guardjax.rl.losses import LossParams, policy_loss

SHAPE = (3, 4, 5)


@functools.cache
def compiled(params, differentiate):
    """One program for each kind of loss, shared by the tests."""
    if differentiate is None:
        return jax.jit(lambda inputs, x: policy_loss(**inputs, params=params))
    loss = lambda x, inputs: policy_loss(**{**inputs, differentiate: x}, params=params).loss
    return jax.jit(lambda inputs, x: jax.value_and_grad(loss)(x, inputs))


def run(inputs, params, differentiate=None):
    """The sums; or the loss and its gradient by one input."""
    return compiled(params, differentiate)(inputs, inputs.get(differentiate))


def random_inputs(seed=0, dtype=np.float32):
    rng = np.random.default_rng(seed)
    logp = -rng.exponential(1.0, SHAPE)
    length = rng.integers(0, SHAPE[-1] + 1, SHAPE[:2])
    return {
        "logp": logp.astype(dtype),
        "old_logp": (logp + rng.normal(0, 0.3, SHAPE)).astype(dtype),
        "ref_logp": (logp + rng.normal(0, 0.3, SHAPE)).astype(dtype),
        "advantages": rng.normal(size=SHAPE[:2]).astype(dtype),
        "mask": np.arange(SHAPE[-1]) < length[..., None],
        "entropy": rng.exponential(1.0, SHAPE).astype(dtype),
    }


def oracle(logp, old_logp, ref_logp, advantages, mask, entropy, params):
    """One token at a time, in float64; returns the mean loss and some counts."""
    total, answers, tokens, clipped = 0.0, 0, 0, 0
    for b in range(SHAPE[0]):
        for g in range(SHAPE[1]):
            terms = []
            for t in range(SHAPE[2]):
                if not mask[b, g, t]:
                    continue
                new, advantage = float(logp[b, g, t]), float(advantages[b, g])
                rho = np.exp(new - float(old_logp[b, g, t]))
                kept = min(max(rho, 1 - params.clip_low), 1 + params.clip_high)
                clipped += kept * advantage < rho * advantage
                d = float(ref_logp[b, g, t]) - new
                kl = np.exp(d) - d - 1 if params.kl == "k3" else d * d / 2
                terms.append(
                    -min(rho * advantage, kept * advantage)
                    + params.kl_coef * kl
                    - params.entropy_coef * float(entropy[b, g, t])
                )
            if terms:
                answers, tokens = answers + 1, tokens + len(terms)
                divisor = {"sequence_mean": len(terms), "token_mean": 1,
                           "constant": params.max_tokens}[params.aggregate]
                total += sum(terms) / divisor
    return total / (tokens if params.aggregate == "token_mean" else answers), tokens, clipped


CASES = [
    LossParams(kl_coef=0.1, entropy_coef=0.05, kl=kl, aggregate=aggregate, max_tokens=5,
               clip_low=0.1, clip_high=0.25)
    for kl in ("k3", "k2")
    for aggregate in ("sequence_mean", "token_mean", "constant")
]


@pytest.mark.parametrize("params", CASES, ids=lambda p: f"{p.kl}-{p.aggregate}")
@pytest.mark.parametrize("seed", [0, 1])
def test_agrees_with_numpy(params, seed):
    inputs = random_inputs(seed)
    sums = run(inputs, params)
    mean, tokens, clipped = oracle(**inputs, params=params)
    assert float(sums.loss / sums.count) == pytest.approx(mean, rel=1e-6, abs=1e-6)
    assert float(sums.tokens) == tokens and float(sums.clipped) == clipped > 0
    assert float(sums.nonfinite) == 0
    whole = sums.kl_penalty - sums.objective - sums.entropy_bonus
    assert float(sums.loss) == pytest.approx(float(whole), rel=1e-6)


@pytest.mark.parametrize("params", CASES, ids=lambda p: f"{p.kl}-{p.aggregate}")
def test_gradient_agrees_with_finite_differences(params):
    with jax.enable_x64(True):
        inputs = random_inputs(2, np.float64)
        logp, step = inputs["logp"], 1e-6
        loss = lambda logp: float(run({**inputs, "logp": logp}, params, "logp")[0])
        found = np.asarray(run(inputs, params, "logp")[1])
        for i in np.ndindex(SHAPE):
            bump = np.zeros(SHAPE)
            bump[i] = step
            want = (loss(logp + bump) - loss(logp - bump)) / (2 * step)
            assert found[i] == pytest.approx(want, abs=1e-7)


def test_sums_of_parts_are_the_sum_of_the_whole():
    for params in CASES[:2]:
        inputs = random_inputs(3)
        whole = run(inputs, params)
        halves = [
            run({k: v[rows] for k, v in inputs.items()}, params)
            for rows in (slice(0, 1), slice(1, 3))
        ]
        added = halves[0] + halves[1]
        for found, want in zip(jax.tree.leaves(added), jax.tree.leaves(whole), strict=True):
            np.testing.assert_allclose(found, want, rtol=1e-5)


def test_without_old_logp_it_is_the_plain_policy_gradient():
    inputs = random_inputs(4)
    params = LossParams(aggregate="token_mean")
    advantages, mask = inputs["advantages"], inputs["mask"]
    want = -np.where(mask, advantages[..., None], 0)
    inputs |= {"old_logp": None, "ref_logp": None}
    np.testing.assert_allclose(run(inputs, params, "logp")[1], want, rtol=1e-6)
    sums = run(inputs, params)
    assert sums.ratio == sums.tokens and sums.clipped == 0


def test_no_gradient_reaches_old_reference_or_advantages():
    inputs = random_inputs(5)
    params = CASES[0]
    names = ("old_logp", "ref_logp", "advantages")
    loss = lambda moved: policy_loss(**{**inputs, **moved}, params=params).loss
    grads = jax.jit(jax.grad(loss))({name: inputs[name] for name in names})
    assert all((np.asarray(grad) == 0).all() for grad in grads.values())


def test_masked_nan_does_not_matter():
    inputs = random_inputs(6)
    mask = inputs["mask"]
    spoiled = {
        k: v if k in ("mask", "advantages") else np.where(mask, v, np.nan)
        for k, v in inputs.items()
    }
    clean, dirty = (run(kw, CASES[0], "logp") for kw in (inputs, spoiled))
    np.testing.assert_array_equal(clean[0], dirty[0])
    np.testing.assert_array_equal(clean[1], dirty[1])


@pytest.mark.parametrize("field", ["old_logp", "ref_logp"])
def test_infinite_log_ratio_is_bounded_and_counted(field):
    inputs = random_inputs(7)
    inputs["mask"] = np.ones(SHAPE, bool)
    inputs[field] = inputs[field].copy()
    inputs[field][0, 0, 0] = -np.inf
    value, grad = run(inputs, CASES[0], "logp")
    assert np.isfinite(value) and np.isfinite(grad).all()
    assert run(inputs, CASES[0]).nonfinite == 1


@pytest.mark.parametrize("field", ["logp", "old_logp", "ref_logp", "advantages"])
def test_nan_surfaces(field):
    inputs = random_inputs(8)
    inputs["mask"] = np.ones(SHAPE, bool)
    inputs[field] = inputs[field].copy()
    inputs[field].flat[0] = np.nan
    sums = run(inputs, CASES[0])
    assert np.isnan(sums.loss)
    assert sums.nonfinite == (0 if field == "advantages" else 1)


def test_nothing_to_learn_from_is_zero():
    inputs = random_inputs(9)
    inputs["mask"] = np.zeros(SHAPE, bool)
    sums = run(inputs, CASES[0])
    assert all(float(leaf) == 0 for leaf in jax.tree.leaves(sums))


def test_kl_estimates_the_divergence():
    """On samples of p, the mean of k3 is KL(p || q)."""
    rng = np.random.default_rng(0)
    p, q = np.array([0.5, 0.3, 0.2]), np.array([0.3, 0.3, 0.4])
    draws = rng.choice(3, p=p, size=(1, 1, 200_000))
    sums = run(
        {"logp": np.log(p)[draws].astype(np.float32), "old_logp": None,
         "ref_logp": np.log(q)[draws].astype(np.float32),
         "advantages": np.zeros((1, 1), np.float32), "mask": np.ones(draws.shape, bool)},
        LossParams(),
    )
    assert float(sums.kl / sums.tokens) == pytest.approx((p * np.log(p / q)).sum(), rel=0.02)


def test_missing_inputs_and_bad_numbers_are_refused():
    inputs = random_inputs()
    with pytest.raises(ValueError, match="ref_logp"):
        policy_loss(**{**inputs, "ref_logp": None}, params=LossParams(kl_coef=0.1))
    with pytest.raises(ValueError, match="entropy"):
        policy_loss(**{**inputs, "entropy": None}, params=LossParams(entropy_coef=0.1))
    for bad in ({"kl": "k4"}, {"aggregate": "mean"}, {"aggregate": "constant"}, {"clip_low": -1},
                {"kl_coef": -0.1}, {"ratio": "gspo"}, {"kl_in": "both"}):
        with pytest.raises(ValueError):
            dataclasses.replace(LossParams(), **bad)


def test_metrics_are_sums_and_counts():
    sums = run(random_inputs(), CASES[0])
    metrics = sums.metrics()
    assert set(metrics) >= {"loss", "kl", "clip_fraction", "ratio", "entropy"}
    assert all(len(pair) == 2 for pair in metrics.values())
