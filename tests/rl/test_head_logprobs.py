"""Chunks of tokens and vocabulary: equal to the plain way, and no array of tokens by vocabulary."""

from __future__ import annotations

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from guardjax.rl.head_logprobs import head_logprobs
from guardjax.rl.logprobs import PLAIN_BYTES, token_logprobs
from guardjax.rl.model_fns import ModelFns
from guardjax.rl.transform import NEVER, make_transform
from guardjax.types import Head, PromptBatch, Segment

QWEN = 151_936


def make_case(vocab, width=16, batch=2, num=7, seed=0, scale=1.0):
    rng = np.random.default_rng(seed)
    normal = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
    targets = jnp.asarray(rng.integers(1, vocab, (batch, num)), jnp.int32)
    return scale * normal(batch, num, width), normal(vocab, width), targets, normal(2, batch, num)


def chunked(hidden, weight, targets, transform, vocab_axis=0, dtype="float32", **chunks):
    weight = weight if vocab_axis == 0 else weight.T
    return head_logprobs(Head(weight, vocab_axis, dtype), hidden, targets, transform, **chunks)


def plain(hidden, weight, targets, transform):
    log_all = jax.nn.log_softmax(transform(hidden @ weight.T))
    logp = jnp.take_along_axis(log_all, targets[..., None], axis=-1)[..., 0]
    return logp, -jnp.sum(jnp.exp(log_all) * log_all, axis=-1)


def compare(case, transform, **how):
    """Values to 2e-5 * max(1, |logp|), gradients to 1e-4 of the largest entry."""
    hidden, weight, targets, weights = case

    def graded(score):
        def loss(hidden, weight):
            logp, entropy = score(hidden, weight, targets, transform)
            return jnp.sum(weights[0] * logp + weights[1] * entropy), (logp, entropy)
        return jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(hidden, weight)

    (_, want), want_grads = graded(plain)
    (_, found), grads = graded(lambda *args: chunked(*args, **how))
    for one, other in zip(found, want, strict=True):
        assert (np.abs(one - other) <= 2e-5 * np.maximum(1, np.abs(other))).all()
    for one, other in zip(grads, want_grads, strict=True):
        assert np.abs(one - other).max() <= 1e-4 * np.abs(other).max()


@pytest.mark.parametrize("how", [
    {"vocab_axis": 0, "token_chunk": 3, "vocab_chunk": 128},    # neither divides
    {"vocab_axis": 1, "token_chunk": 7, "vocab_chunk": 250},    # both do
], ids=str)
def test_agrees_with_the_plain_way(how):
    blocked = range(0, 1000, 3)
    case = make_case(1000)
    case = (*case[:2], 3 * (case[2] // 3) + 1, case[3])     # targets that are allowed
    compare(case, make_transform(1000, temperature=0.7, blocked=blocked), **how)


def test_agrees_with_the_plain_way_over_the_real_vocabulary():
    """Default chunks: 19 of 8,064, the last of which reaches back; the last ids are blocked."""
    case = make_case(QWEN, batch=1, num=4)
    targets = case[2].at[0, :2].set(jnp.array([0, QWEN - 600]))
    transform = make_transform(QWEN, blocked=range(QWEN - 500, QWEN))
    compare((case[0], case[1], targets, case[3]), transform, vocab_axis=1)


def test_sure_and_blocked_tokens_are_finite():
    """Logits in the hundreds, a whole chunk that is not allowed, and a target within it."""
    hidden, weight, targets, weights = make_case(64, scale=100.0)
    transform = make_transform(64, blocked=range(16, 32))
    targets = targets.at[0, 0].set(20)

    def loss(hidden, weight):
        logp, entropy = chunked(hidden, weight, targets, transform, vocab_chunk=16)
        return jnp.sum(logp[:, 1:]) + jnp.sum(entropy), (logp, entropy)

    (_, (logp, entropy)), grads = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(
        hidden, weight)
    assert logp[0, 0] <= NEVER / 2 and np.isfinite(logp).all()
    assert (np.asarray(entropy) >= -1e-5).all() and np.isfinite(entropy).all()
    assert all(np.isfinite(grad).all() for grad in grads)
    assert (np.asarray(grads[1])[16:32] == 0).all()


def test_factors_of_half_the_width_are_summed_in_full():
    """In bfloat16 the gradient of the weight is near that of the same numbers in float32."""
    hidden, weight, targets, weights = make_case(96, num=64)
    rounded = [each.astype(jnp.bfloat16) for each in (hidden, weight)]

    def grad(dtype, hidden, weight):
        loss = lambda hidden, weight: jnp.sum(weights[0] * chunked(
            hidden, weight, targets, make_transform(96), dtype=dtype, token_chunk=8,
            vocab_chunk=32)[0])
        return jax.jit(jax.grad(loss, (0, 1)))(hidden, weight)

    found = grad("bfloat16", *rounded)
    want = grad("float32", *(each.astype(jnp.float32) for each in rounded))
    for one, other in zip(found, want, strict=True):
        assert one.dtype == jnp.bfloat16
        gap = np.abs(np.asarray(one, np.float32) - other)
        assert gap.max() < 0.01 * np.abs(other).max()


def test_nan_is_not_hidden():
    hidden, weight, targets, _ = make_case(64)
    logp, entropy = chunked(hidden.at[0, 0, 0].set(jnp.nan), weight, targets, make_transform(64),
                            vocab_chunk=16)
    assert np.isnan(logp[0, 0]) and np.isnan(entropy[0, 0]) and np.isfinite(logp[1]).all()


def test_a_transform_of_another_width_is_refused():
    hidden, weight, targets, _ = make_case(64)
    with pytest.raises(ValueError, match="vocabulary of 64"):
        chunked(hidden, weight, targets, make_transform(65), vocab_chunk=16)


def lowered_pass(vocab, shape, width, **chunks):
    """The lowered gradient of `token_logprobs` on a model that is nothing but its head."""
    head = lambda params: Head(params["head"], vocab_axis=0, dtype="float32")
    fns = ModelFns(
        encode=None, open_buffer=None, head=head,
        forward=lambda params, *_: ((params["prompt"], params["answers"]), None),
        unembed=lambda params, hidden: head(params).product(hidden, params["head"]))
    batch, group, tokens = shape
    segment = Segment(np.ones((batch, 1), np.int32), np.zeros((batch, 1, 3), np.int32),
                      np.ones((batch, 1), bool))
    prompts = PromptBatch(segment, np.ones(batch, np.int32))

    def loss(params, targets):
        logp, entropy = token_logprobs(fns, params, prompts, targets, np.full(shape[:2], tokens),
                                       make_transform(vocab, blocked=[0]), **chunks)
        return jnp.sum(logp) + 0.1 * jnp.sum(entropy)

    floats = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.float32)
    params = {"prompt": floats(batch, 1, width), "head": floats(vocab, width),
              "answers": floats(batch, group, tokens - 1, width)}
    return jax.jit(jax.value_and_grad(loss)).lower(
        params, jax.ShapeDtypeStruct(shape, jnp.int32))


def largest(text, pattern, besides):
    """Elements of the largest array of a program's text but for those of one shape."""
    shapes = {tuple(int(n) for n in re.split("[x,]", found.strip("x")))
              for found in re.findall(pattern, text)}
    return max(math.prod(shape) for shape in shapes if sorted(shape) != sorted(besides))


def test_no_array_of_tokens_by_vocabulary_is_in_the_compiled_program():
    """Its largest buffer but the head's own is a block; the plain way has all the logits."""
    vocab, shape, width = 5000, (2, 4, 64), 24
    everything = math.prod(shape) * vocab
    jax.config.update("jax_disable_most_optimizations", False)
    try:
        programs = [lowered_pass(vocab, shape, width, **chunks).compile()
                    for chunks in ({}, {"token_chunk": 16, "vocab_chunk": 512})]
    finally:
        jax.config.update("jax_disable_most_optimizations", True)
    plainly, in_chunks = (
        largest(program.as_text(), r"\w+\[([\d,]+)\]", (vocab, width)) for program in programs)
    assert everything * 0.9 < plainly and in_chunks <= 2 * 16 * 512
    sizes = [program.memory_analysis().temp_size_in_bytes for program in programs]
    assert sizes[0] > 4 * everything > 10 * sizes[1]


def test_the_way_follows_from_the_size_of_the_logits():
    """At 16 MiB all are made at once, above it none, without a word from the caller."""
    def block(vocab, shape):
        text = lowered_pass(vocab, shape, 8).as_text()
        return largest(text, r"tensor<((?:\d+x)+)[a-z]\w*>", (vocab, 8))

    tokens = PLAIN_BYTES // 4 // 1024
    assert block(1024, (1, 1, tokens)) >= 1024 * (tokens - 1)
    above = block(1024, (1, 1, tokens + 1))
    assert above <= 1024 * 1024
    assert block(QWEN, (1, 8, 512)) <= 1024 * 8192
