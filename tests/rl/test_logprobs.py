"""Log-probabilities against a model that is shown every prompt G times, whole, one by one."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from guardjax.rl.answers import completion_mask
from guardjax.rl.logprobs import next_token_logits, token_logprobs
from guardjax.rl.transform import NEVER, make_transform
from guardjax.types import Segment

G, T = 4, 5


def make_answers(toy, batch=3, seed=0, max_tokens=T):
    rng = np.random.default_rng(seed)
    tokens = rng.integers(3, toy.vocab, (batch, G, max_tokens)).astype(np.int32)
    length = rng.integers(0, max_tokens + 1, (batch, G)).astype(np.int32)
    length[0, 0] = max_tokens
    return jnp.asarray(tokens), jnp.asarray(length)


def oracle(toy, params, prompts, tokens, length, transform):
    """Repeats everything: each completion is one plain row, its words right behind the prompt's."""
    prompts, tokens = jax.tree.map(np.asarray, (prompts, tokens))
    batch, group, max_tokens = tokens.shape
    prompt = prompts.prompt
    lengths = np.repeat(prompt.mask.sum(-1), group)
    length = np.asarray(length).ravel()
    width = prompt.tokens.shape[1] + max_tokens
    words = np.zeros((batch * group, width), np.int32)
    places = np.zeros((batch * group, width, 3), np.int32)
    index = np.full((batch * group, width), -1, np.int32)
    for row, (start, n) in enumerate(zip(lengths, length)):
        b = row // group
        words[row, :start] = prompt.tokens[b, :start]
        places[row, :start] = prompt.positions[b, :start]
        words[row, start : start + n] = tokens.reshape(-1, max_tokens)[row, :n]
        places[row, start : start + n] = (int(prompts.next_pos[b]) + np.arange(n))[:, None]
        if prompt.feature_index is not None:
            index[row, :start] = prompt.feature_index[b, :start]
    features = None
    if prompts.vision is not None:
        features = jnp.repeat(toy.fns.encode(params, prompts.vision), group, axis=0)
    real = np.arange(width) < (lengths + length)[:, None]
    (hidden,), _ = toy.fns.forward(params, (Segment(words, places, real, index),), features, None)
    logp_all = jax.nn.log_softmax(transform(toy.fns.unembed(params, hidden)))
    predicting = np.minimum(lengths[:, None] - 1 + np.arange(max_tokens), width - 1)
    logp_all = logp_all[np.arange(batch * group)[:, None], predicting]
    logp = jnp.take_along_axis(logp_all, tokens.reshape(-1, max_tokens, 1), axis=-1)[..., 0]
    entropy = -(jnp.exp(logp_all) * logp_all).sum(-1)
    mask = np.arange(max_tokens) < length[:, None]
    return tuple(jnp.where(mask, x, 0).reshape(tokens.shape) for x in (logp, entropy))


@pytest.mark.parametrize(
    "vision, chunks", [(False, {}), (True, {"token_chunk": 3}),
                       (True, {"token_chunk": 3, "vocab_chunk": 5})]
)
def test_values_and_gradients_agree_with_the_repeated_path(toy, vision, chunks):
    prompts = toy.make_prompts(width=8, vision=vision)
    tokens, length = make_answers(toy)
    transform = make_transform(toy.vocab, temperature=0.8, blocked=[toy.image, toy.pad])
    rng = np.random.default_rng(5)
    weights = rng.normal(size=(2, 3, G, T)).astype(np.float32)

    def shared(params):
        logp, entropy = token_logprobs(
            toy.fns, params, prompts, tokens, length, transform, **chunks
        )
        return (weights[0] * logp + weights[1] * entropy).sum(), (logp, entropy)

    def repeated(params):
        logp, entropy = oracle(toy, params, prompts, tokens, length, transform)
        return (weights[0] * logp + weights[1] * entropy).sum(), (logp, entropy)

    (_, found), grads = jax.jit(jax.value_and_grad(shared, has_aux=True))(toy.params)
    (_, want), want_grads = jax.jit(jax.value_and_grad(repeated, has_aux=True))(toy.params)
    np.testing.assert_allclose(found[0], want[0], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found[1], want[1], rtol=1e-5, atol=1e-5)
    for name, grad in grads.items():
        np.testing.assert_allclose(grad, want_grads[name], rtol=2e-4, atol=2e-5, err_msg=name)


@pytest.mark.parametrize("chunks", [{"token_chunk": 1}, {"token_chunk": 1000},
                                    {"vocab_chunk": 4}, {"vocab_chunk": 1000}], ids=str)
def test_any_chunk_gives_the_same(toy, chunks):
    prompts, transform = toy.make_prompts(), make_transform(toy.vocab)
    tokens, length = make_answers(toy)
    one, other = (
        jax.jit(lambda p, c=c: token_logprobs(
            toy.fns, p, prompts, tokens, length, transform, **c
        ))(toy.params)
        for c in ({}, chunks)
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), one, other)


def test_answers_of_one_token(toy):
    prompts = toy.make_prompts()
    transform = make_transform(toy.vocab)
    tokens, _ = make_answers(toy, max_tokens=1)
    ones = jnp.ones((3, G), jnp.int32)
    (logp, entropy), logits = jax.jit(lambda p: (
        token_logprobs(toy.fns, p, prompts, tokens, ones, transform),
        next_token_logits(toy.fns, p, prompts),
    ))(toy.params)
    want = scipy.special.log_softmax(np.asarray(logits, np.float64), axis=-1)
    chosen = np.take_along_axis(want, np.asarray(tokens)[..., 0], axis=-1)
    np.testing.assert_allclose(logp[..., 0], chosen, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(entropy[:, 0, 0], -(np.exp(want) * want).sum(-1), rtol=1e-5)


def test_masked_by_length_even_where_pad_is_a_word(toy):
    """Tokens beyond the length never matter, and a pad token within it counts."""
    prompts = toy.make_prompts()
    transform = make_transform(toy.vocab)
    tokens, length = make_answers(toy)
    tokens = tokens.at[0, 0].set(toy.pad)
    call = jax.jit(lambda t: token_logprobs(toy.fns, toy.params, prompts, t, length, transform))
    logp, entropy = call(tokens)
    mask = np.asarray(completion_mask(length, T))
    assert (np.asarray(logp)[mask] < 0).all() and (np.asarray(logp)[~mask] == 0).all()
    assert (np.asarray(entropy)[~mask] == 0).all()
    other = call(jnp.where(mask, tokens, 7))
    np.testing.assert_array_equal(logp, other[0])


def test_features_given_are_not_encoded_again(toy):
    prompts = toy.make_prompts(vision=True)
    tokens, length = make_answers(toy)
    transform = make_transform(toy.vocab)

    def refuse(params, vision):
        raise AssertionError("encoded again")

    blind = dataclasses.replace(toy.fns, encode=refuse)
    features = toy.fns.encode(toy.params, prompts.vision)
    score = lambda fns, features: jax.jit(
        lambda p: token_logprobs(
            fns, p, prompts, tokens, length, transform, features=features
        )
    )(toy.params)
    np.testing.assert_allclose(score(blind, features)[0], score(toy.fns, None)[0], atol=1e-6)


def test_a_blocked_token_is_never_likely_and_never_nan(toy):
    prompts = toy.make_prompts()
    transform = make_transform(toy.vocab, blocked=[4])
    tokens = jnp.full((3, G, T), 4)
    length = jnp.full((3, G), T)
    value, grad = jax.jit(jax.value_and_grad(
        lambda p: token_logprobs(toy.fns, p, prompts, tokens, length, transform)[0].sum()
    ))(toy.params)
    assert value <= NEVER / 2
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grad))


def test_chunks_bound_the_logits(toy):
    """With a chunk of c the largest array with a vocabulary axis is [B, c, V], also backward."""
    prompts = toy.make_prompts()
    tokens, length = make_answers(toy)
    transform = make_transform(toy.vocab)

    def widest(token_chunk):
        loss = lambda p: token_logprobs(
            toy.fns, p, prompts, tokens, length, transform, token_chunk=token_chunk
        )[0].sum()
        text = jax.jit(jax.grad(loss)).lower(toy.params).as_text()
        shapes = re.findall(rf"tensor<((?:\d+x)+){toy.vocab}xf32>", text)
        return max(int(np.prod([int(n) for n in s.rstrip("x").split("x")])) for s in shapes)

    assert widest(None) == 3 * G * (T - 1)
    assert widest(2) <= max(3 * 2, toy.width)


def test_chunk_must_be_positive(toy):
    tokens, length = make_answers(toy)
    with pytest.raises(ValueError, match="token_chunk"):
        token_logprobs(toy.fns, toy.params, toy.make_prompts(), tokens, length,
                       make_transform(toy.vocab), token_chunk=0)
    with pytest.raises(ValueError, match="vocab_chunk must be"):
        token_logprobs(toy.fns, toy.params, toy.make_prompts(), tokens, length,
                       make_transform(toy.vocab), vocab_chunk=0)
    with pytest.raises(ValueError, match="no head"):
        token_logprobs(dataclasses.replace(toy.fns, head=None), toy.params, toy.make_prompts(),
                       tokens, length, make_transform(toy.vocab), vocab_chunk=4)
