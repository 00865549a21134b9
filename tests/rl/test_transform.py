"""The one transform: temperature, blocked tokens, and its refusals."""

import jax
import numpy as np
import pytest

from guardjax.rl.transform import LogitTransform, make_transform


def test_divides_and_blocks():
    logits = np.array([[1.0, 2.0, 3.0]], np.float32)
    transform = make_transform(3, temperature=0.5, blocked=[1])
    probabilities = np.asarray(jax.nn.softmax(transform(logits)))
    assert probabilities[0, 1] == 0
    np.testing.assert_allclose(probabilities[0, 2] / probabilities[0, 0], np.exp(4), rtol=1e-5)


def test_gradient_is_finite_and_zero_where_blocked():
    transform = make_transform(4, blocked=[0, 3])

    def entropy(logits):
        logp = jax.nn.log_softmax(transform(logits))
        return -(np.e ** logp * logp).sum()

    grad = np.asarray(jax.jit(jax.grad(entropy))(np.array([9.0, 1.0, 2.0, -5.0], np.float32)))
    assert np.isfinite(grad).all() and (grad[[0, 3]] == 0).all() and (grad[[1, 2]] != 0).all()


def test_is_a_pytree_so_that_values_do_not_recompile():
    call = jax.jit(lambda transform, logits: transform(logits))
    logits = np.zeros(4, np.float32)
    for temperature, blocked in [(1.0, [0]), (0.7, [1, 2]), (2.0, [])]:
        call(make_transform(4, temperature=temperature, blocked=blocked), logits)
    assert call._cache_size() == 1


def test_refusals():
    for temperature in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(ValueError, match="temperature"):
            make_transform(4, temperature=temperature)
    with pytest.raises(ValueError, match="blocked token 4"):
        make_transform(4, blocked=[4])
    with pytest.raises(ValueError, match="every token"):
        make_transform(2, blocked=[0, 1])
    with pytest.raises(ValueError, match="vocabulary of 5"):
        make_transform(4)(np.zeros(5, np.float32))
    assert LogitTransform()(np.zeros(3)).dtype == np.float32
