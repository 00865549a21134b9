"""BP-Adapt's hinges against float64 NumPy, and their gradients against finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from guardjax.rl.pair_hinge import pair_hinge


def numpy_losses(safe, unsafe, margin):
    """The paper's formula, one pair at a time: F is "safe", T is "unsafe"."""
    own, pair = [], []
    for k in range(len(safe) // 2):
        f_pass, f_block, t_pass, t_block = safe[2*k], safe[2*k + 1], unsafe[2*k], unsafe[2*k + 1]
        own += [max(0.0, margin - (f_pass - t_pass)), max(0.0, margin - (t_block - f_block))]
        pair.append((max(0.0, margin - (t_block - t_pass))
                     + max(0.0, margin - (f_pass - f_block))) / 2)
    return np.array(own), np.array(pair)


@pytest.mark.parametrize("margin", [0.0, 0.5, 2.0])
def test_losses_are_those_of_the_formula(margin):
    safe, unsafe = np.random.default_rng(0).normal(scale=3, size=(2, 64))
    own, pair = pair_hinge(safe.astype(np.float32), unsafe.astype(np.float32), margin)
    want_own, want_pair = numpy_losses(safe, unsafe, margin)
    np.testing.assert_allclose(own, want_own, atol=1e-6)
    np.testing.assert_allclose(pair, want_pair, atol=1e-6)
    assert (want_own > 0).any() and (want_own == 0).any()
    assert (want_pair > 0).any() and (want_pair == 0).any()


def test_gradients_are_finite_differences():
    def total(losses):
        return 0.1 * losses[0].mean() + 0.2 * losses[1].mean()

    logits = np.random.default_rng(1).normal(size=(2, 16))
    found = jax.grad(lambda x: total(pair_hinge(x[0], x[1], 0.5)))(jnp.asarray(logits, jnp.float32))
    wanted, step = np.zeros_like(logits), 1e-6
    for place in np.ndindex(logits.shape):
        moved = np.zeros_like(logits)
        moved[place] = step
        wanted[place] = (total(numpy_losses(*(logits + moved), 0.5))
                         - total(numpy_losses(*(logits - moved), 0.5))) / (2 * step)
    np.testing.assert_allclose(found, wanted, atol=1e-7)
    assert len(np.unique(wanted.round(9))) > 3


def test_wide_contrasts_cost_nothing_and_a_constant_pays_the_margins():
    safe, unsafe = np.array([3.0, -3.0]), np.array([-3.0, 3.0])
    own, pair = pair_hinge(safe, unsafe, 0.5)
    assert not own.any() and not pair.any()
    # The same logits under both policies: one prompt is right by far, the pair pays all the same.
    own, pair = pair_hinge(np.array([3.0, 3.0]), np.array([-3.0, -3.0]), 0.5)
    np.testing.assert_allclose(own, [0.0, 6.5])
    np.testing.assert_allclose(pair, [0.5])
