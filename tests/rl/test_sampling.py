"""The sampler: what it returns, how it is distributed, when it stops, and what it never repeats."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from guardjax.rl.answers import completion_mask
from guardjax.rl.logprobs import next_token_logits, token_logprobs
from guardjax.rl.sampling import SamplingParams, generate
from guardjax.rl.transform import LogitTransform, make_transform

KEY = jax.random.key(7)


@pytest.fixture(scope="module")
def sample(toy):
    """`sample(prompts, ...)`: generate under one jit per static setting, counting compilations."""
    compiled = {}

    def call(prompts, *, num_samples=4, max_tokens=6, key=KEY, transform=None, greedy=False,
             end=toy.end, fns=toy.fns, **kwargs):
        sampling = SamplingParams(num_samples, max_tokens, end, toy.pad, greedy)
        if (fns, sampling) not in compiled:
            compiled[fns, sampling] = jax.jit(
                lambda params, prompts, key, transform, kwargs: generate(
                    fns, params, prompts, key, sampling, transform, **kwargs
                )
            )
        transform = make_transform(toy.vocab) if transform is None else transform
        # Always given, so that tests share programs; that it is the default is tested below.
        kwargs.setdefault("example_index", np.arange(prompts.next_pos.shape[0], dtype=np.int32))
        return compiled[fns, sampling](toy.params, prompts, key, transform, kwargs)

    return call


@pytest.mark.parametrize("vision, greedy", [(False, False), (False, True), (True, False)])
def test_logp_equals_recomputed(toy, sample, vision, greedy):
    prompts = toy.make_prompts(vision=vision)
    transform = make_transform(toy.vocab, temperature=1.3, blocked=[toy.image, toy.pad])
    samples = sample(prompts, transform=transform, greedy=greedy)
    logp = _recomputed(toy, prompts, samples.tokens, samples.length, transform)
    np.testing.assert_allclose(samples.logp, logp, atol=2e-5)
    mask = np.asarray(completion_mask(samples.length, 6))
    assert (np.asarray(samples.logp)[mask] < 0).all()
    assert not np.isin(np.asarray(samples.tokens)[mask], [toy.image, toy.pad]).any()


def _recomputed(toy, prompts, tokens, length, transform):
    score = lambda p: token_logprobs(toy.fns, p, prompts, tokens, length, transform)[0]
    return jax.jit(score)(toy.params)


def _first_logits(toy, prompts):
    return jax.jit(lambda p: next_token_logits(toy.fns, p, prompts))(toy.params)


def test_end_token_is_counted_and_the_rest_is_padding(toy, sample):
    samples = sample(toy.make_prompts(), num_samples=64, max_tokens=8)
    tokens, length, ended = (np.asarray(x) for x in (samples.tokens, samples.length, samples.ended))
    assert ended.any() and not ended.all()
    for row, n, end in zip(tokens.reshape(-1, 8), length.ravel(), ended.ravel()):
        assert (row[n:] == toy.pad).all()
        assert (row[: n - 1] != toy.end).all()
        assert (row[n - 1] == toy.end) == end
        assert end or n == 8
    assert (np.asarray(samples.logp)[~np.asarray(completion_mask(length, 8))] == 0).all()


def test_pad_may_be_the_end_token(toy, sample):
    same = sample(toy.make_prompts(), end=toy.pad, num_samples=64, max_tokens=8)
    tokens, length, ended = (np.asarray(x) for x in (same.tokens, same.length, same.ended))
    found = np.take_along_axis(tokens, length[..., None] - 1, axis=-1)[..., 0] == toy.pad
    np.testing.assert_array_equal(found, ended)
    assert ended.any()


def test_first_token_follows_the_distribution(toy, sample):
    prompts = toy.make_prompts()
    transform = make_transform(toy.vocab, temperature=1.5, blocked=[4])
    samples = sample(prompts, num_samples=4000, max_tokens=1, transform=transform)
    p = jax.nn.softmax(transform(_first_logits(toy, prompts)))
    for row, want in zip(np.asarray(samples.tokens)[..., 0], np.asarray(p, np.float64)):
        _chi_square(row, want)


def test_second_token_follows_the_distribution(toy, sample):
    """Given the commonest first token, whose samples are many enough to count."""
    prompts = toy.make_prompts((5,))
    transform = make_transform(toy.vocab)
    samples = sample(prompts, num_samples=8000, max_tokens=2)
    tokens, length = np.asarray(samples.tokens)[0], np.asarray(samples.length)[0]
    live = tokens[length == 2]
    first = np.bincount(live[:, 0]).argmax()
    second = live[live[:, 0] == first, 1]
    every = jnp.stack([jnp.full(toy.vocab, first), jnp.arange(toy.vocab)], -1)[None]
    logp = _recomputed(toy, prompts, every, jnp.full((1, toy.vocab), 2), transform)
    assert len(second) > 500
    _chi_square(second, np.exp(np.asarray(logp, np.float64)[0, :, 1]))


def _chi_square(draws, probabilities):
    counts = np.bincount(draws, minlength=len(probabilities)).astype(float)
    assert counts[probabilities == 0].sum() == 0
    expected = probabilities / probabilities.sum() * len(draws)
    rare = expected < 5
    if rare.any():
        counts = np.append(counts[~rare], counts[rare].sum())
        expected = np.append(expected[~rare], expected[rare].sum())
        if expected[-1] < 1:
            counts, expected = counts[:-1], expected[:-1] / expected[:-1].sum() * counts[:-1].sum()
    assert scipy.stats.chisquare(counts, expected).pvalue > 1e-3


def test_samples_of_a_group_differ_and_keys_matter(toy, sample):
    prompts = toy.make_prompts()
    one = sample(prompts, num_samples=64, max_tokens=8)
    again = sample(prompts, num_samples=64, max_tokens=8)
    other = sample(prompts, num_samples=64, max_tokens=8, key=jax.random.key(8))
    np.testing.assert_array_equal(one.tokens, again.tokens)
    assert (np.asarray(one.tokens) != np.asarray(other.tokens)).any()
    assert len(np.unique(np.asarray(one.tokens)[0], axis=0)) > 8


def test_raw_keys_and_the_default_index(toy, sample):
    """An old-style uint32 key gives the same stream; by default rows are numbered from 0."""
    prompts = toy.make_prompts()
    typed = sample(prompts, num_samples=4000, max_tokens=1)
    sampling = SamplingParams(4000, 1, toy.end, toy.pad)
    raw = jax.jit(lambda params, key: generate(
        toy.fns, params, prompts, key, sampling, make_transform(toy.vocab)
    ))(toy.params, jax.random.key_data(KEY))
    np.testing.assert_array_equal(raw.tokens, typed.tokens)


def test_greedy_takes_the_best_and_is_deterministic(toy, sample):
    prompts = toy.make_prompts()
    one = sample(prompts, greedy=True)
    other = sample(prompts, greedy=True, key=jax.random.key(99))
    np.testing.assert_array_equal(one.tokens, other.tokens)
    assert (np.asarray(one.tokens) == np.asarray(one.tokens)[:, :1]).all()
    best = _first_logits(toy, prompts).argmax(-1)
    np.testing.assert_array_equal(one.tokens[:, 0, 0], best)


def test_right_padding_does_not_alter_results(toy, sample):
    narrow = sample(toy.make_prompts(width=6))
    wide = sample(toy.make_prompts(width=11))
    np.testing.assert_array_equal(narrow.tokens, wide.tokens)
    np.testing.assert_array_equal(narrow.length, wide.length)
    np.testing.assert_allclose(narrow.logp, wide.logp, atol=2e-6)


def test_samples_follow_their_example_through_the_batch(toy, sample):
    """With `example_index` a row's samples are the same wherever it stands; G and T may vary."""
    prompts = toy.make_prompts()
    index = np.array([10, 11, 12], np.int32)
    straight = sample(prompts, example_index=index)
    order = np.array([2, 0, 1])
    turned = sample(
        jax.tree.map(lambda x: np.asarray(x)[order], prompts), example_index=index[order]
    )
    np.testing.assert_array_equal(np.asarray(straight.tokens)[order], turned.tokens)
    more = sample(prompts, num_samples=64, max_tokens=8, example_index=index)
    np.testing.assert_array_equal(more.tokens[:, :4, :6], straight.tokens)


def test_filler_rows_are_empty_and_hold_nobody_up(toy, sample):
    prompts = toy.make_prompts((5, 0, 6), width=6)
    samples = sample(prompts)
    assert (np.asarray(samples.length)[1] == 0).all() and np.asarray(samples.ended)[1].all()
    assert (np.asarray(samples.logp)[1] == 0).all()
    alone = sample(toy.make_prompts((5, 3, 6), width=6))
    np.testing.assert_array_equal(samples.tokens[0], alone.tokens[0])


def _counting(toy):
    """The toy model whose decoding steps are counted on the host."""
    steps = []

    def forward(params, segments, features, cache):
        if cache is not None:
            jax.debug.callback(lambda: steps.append(1))
        return toy.fns.forward(params, segments, features, cache)

    return dataclasses.replace(toy.fns, forward=forward), steps


def test_early_exit(toy, sample):
    """The loop stops with the longest answer, and the last token is not fed back."""
    fns, steps = _counting(toy)
    flat = LogitTransform(temperature=5.0, allowed=jnp.isin(jnp.arange(toy.vocab), jnp.array([
        toy.end, 3, 4])))
    samples = sample(toy.make_prompts(), fns=fns, num_samples=2, max_tokens=60, transform=flat)
    jax.effects_barrier()
    longest = int(np.asarray(samples.length).max())
    assert 2 < longest < 60 and np.asarray(samples.ended).all()
    assert len(steps) == longest - 1
    steps.clear()
    only_end = LogitTransform(temperature=1.0, allowed=jnp.arange(toy.vocab) == toy.end)
    ended = sample(toy.make_prompts(), fns=fns, num_samples=2, max_tokens=60, transform=only_end)
    jax.effects_barrier()
    assert (np.asarray(ended.length) == 1).all() and not steps


def test_no_compile_growth(toy):
    sampling = SamplingParams(3, 4, toy.end, toy.pad)
    call = jax.jit(
        lambda params, prompts, key, transform: generate(
            toy.fns, params, prompts, key, sampling, transform
        )
    )
    for seed, temperature in enumerate((1.0, 0.5, 2.0)):
        transform = make_transform(toy.vocab, temperature=temperature, blocked=[seed])
        call(toy.init_params(seed), toy.make_prompts((5, 3, 6), seed=seed), jax.random.key(seed),
             transform)
    assert call._cache_size() == 1


def _shapes(jaxpr):
    """Shapes of every value of a jaxpr, its inner ones included."""
    for eqn in jaxpr.eqns:
        for var in eqn.outvars:
            if hasattr(var.aval, "shape"):
                yield var.aval.shape
        for inner in jax.tree.leaves(
            list(eqn.params.values()), is_leaf=lambda x: hasattr(x, "eqns") or hasattr(x, "jaxpr")
        ):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                yield from _shapes(inner)


@pytest.mark.parametrize("what", ["generate", "logprobs", "gradient"])
def test_the_prompt_is_never_repeated(toy, what):
    """No array holds B * G prompts: prompt axis, group axis and a width never meet."""
    group, width, max_tokens = 5, 41, 3
    prompts = toy.make_prompts((40, 3, 6), width=width, vision=True)
    transform = make_transform(toy.vocab)
    tokens = jnp.ones((3, group, max_tokens), jnp.int32)
    length = jnp.full((3, group), max_tokens)
    sampling = SamplingParams(group, max_tokens, toy.end, toy.pad)
    logp = lambda p: token_logprobs(toy.fns, p, prompts, tokens, length, transform)[0].sum()
    function = {
        "generate": lambda p: generate(toy.fns, p, prompts, KEY, sampling, transform),
        "logprobs": logp,
        "gradient": jax.grad(logp),
    }[what]
    shapes = list(_shapes(jax.make_jaxpr(function)(toy.params).jaxpr))
    assert any(width in shape for shape in shapes)
    for shape in shapes:
        # Attention weights [B, G, T, P] are the one place where P and G may meet: no keys, values
        # or hidden states, and no flat completions.
        assert not {group, width, toy.width} <= set(shape), shape
        assert not {3 * group, width} <= set(shape), shape


def test_bad_numbers_are_refused():
    for bad in ({"num_samples": 0}, {"max_tokens": 0}, {"end_id": -1}, {"pad_id": -1}):
        good = {"num_samples": 1, "max_tokens": 1, "end_id": 1, "pad_id": 0}
        with pytest.raises(ValueError):
            SamplingParams(**{**good, **bad})
