"""Segment attention against a softmax over keys that are repeated for every query segment."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from guardjax.models.attention import KeyPart, segment_attention

B, N, G, K, R, T, D = 2, 3, 4, 2, 3, 5, 8
SCALE = D**-0.5


@jax.jit
def attend(queries, parts):
    return segment_attention(queries, parts, scale=SCALE)


def normal(rng, *shape):
    return rng.standard_normal(shape).astype(np.float32)


def random_part(rng, lead, length, queries):
    return KeyPart(keys=normal(rng, *lead, K, length, D), values=normal(rng, *lead, K, length, D),
                   mask=rng.random((*lead, queries, length)) < 0.7)


def repeated(queries, parts):
    """The same with every part repeated over the query's leading axes and concatenated."""
    lead = queries.shape[:-4]

    def spread(x, axes):
        x = x.reshape(*x.shape[:axes], *[1] * (len(lead) - axes), *x.shape[axes:])
        return jnp.broadcast_to(x, (*lead, *x.shape[len(lead):]))

    keys = jnp.concatenate([spread(p.keys, p.keys.ndim - 3) for p in parts], axis=-2)
    values = jnp.concatenate([spread(p.values, p.keys.ndim - 3) for p in parts], axis=-2)
    masks = [spread(p.mask, p.keys.ndim - 3) for p in parts]
    mask = jnp.concatenate([jnp.broadcast_to(m, (*lead, T, m.shape[-1])) for m in masks], axis=-1)
    scores = jnp.einsum("...krtd,...ksd->...krts", queries, keys) * SCALE
    scores = jnp.where(mask[..., None, None, :, :], scores, -1e30)
    return jnp.einsum("...krts,...ksd->...krtd", jax.nn.softmax(scores), values)


@pytest.fixture(name="case")
def make_case():
    """Image [B], policies [B, N], answers [B, N, G]."""
    rng = np.random.default_rng(0)
    queries = 3 * normal(rng, B, N, G, K, R, T, D)
    parts = [random_part(rng, (B,), 7, 1), random_part(rng, (B, N), 6, 1),
             random_part(rng, (B, N, G), T, T)]
    return queries, parts


def test_values_equal_the_repeated_form(case):
    queries, parts = case
    np.testing.assert_allclose(attend(queries, parts), jax.jit(repeated)(queries, parts), atol=1e-5)


def test_gradients_equal_the_repeated_form(case):
    queries, parts = case
    weights = normal(np.random.default_rng(1), *queries.shape)

    def gradients(function):
        def loss(queries, tensors):
            joined = [KeyPart(*kv, part.mask) for kv, part in zip(tensors, parts)]
            return (function(queries, joined) * weights).sum()
        tensors = [(part.keys, part.values) for part in parts]
        return jax.jit(jax.grad(loss, argnums=(0, 1)))(queries, tensors)

    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), gradients(attend),
                 gradients(repeated))


def test_no_array_holds_the_shared_keys_once_an_answer():
    """In decoding, the prompt's keys are the largest array of the program."""
    length = 512
    queries = jnp.ones((B, G, K, R, 1, D))
    prompt = KeyPart(jnp.ones((B, K, length, D)), jnp.ones((B, K, length, D)),
                     jnp.ones((B, 1, length), bool))
    own = KeyPart(jnp.ones((B, G, K, T, D)), jnp.ones((B, G, K, T, D)),
                  jnp.ones((B, G, 1, T), bool))
    program = jax.make_jaxpr(lambda *a: segment_attention(a[0], a[1:], scale=SCALE))(
        queries, prompt, own)
    with_features = [v.aval.size for eqn in program.eqns for v in eqn.outvars
                     if length in v.aval.shape and D in v.aval.shape]
    assert max(with_features) == prompt.keys.size


def test_large_scores_in_one_part_do_not_overflow(case):
    queries, parts = case
    parts[0] = parts[0]._replace(keys=parts[0].keys * 1e4)
    out = attend(queries, parts)
    assert np.isfinite(out).all()
    np.testing.assert_allclose(out, jax.jit(repeated)(queries, parts), atol=1e-5)


def test_a_row_without_any_key_is_zero_in_value_and_gradient(case):
    queries, parts = case
    blind = [part._replace(mask=jnp.zeros_like(part.mask)) for part in parts]
    value, gradient = jax.jit(jax.value_and_grad(lambda q: abs(attend(q, blind)).sum()))(queries)
    assert value == 0 and not np.any(gradient)


def test_parts_that_cannot_be_shared_are_refused(case):
    queries, parts = case
    with pytest.raises(ValueError, match="cannot be shared"):
        attend(queries[:1], parts)
