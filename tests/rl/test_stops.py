"""Where answers end: sequences of tokens, and a limit of each answer's own."""

from __future__ import annotations

import collections

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from guardjax.rl.sampling import SamplingParams, generate
from guardjax.rl.stops import ends_with, no_tokens, push
from guardjax.rl.transform import make_transform

GROUP, TOKENS = 64, 12


def test_the_last_tokens_against_several_sequences():
    stops = ((1,), (7, 8, 9), (8, 5))
    recent, seen = no_tokens((2,), stops), []
    for pair in ((7, 9), (8, 8), (9, 5), (5, 1)):
        recent = push(recent, jnp.array(pair))
        seen.append(np.asarray(ends_with(recent, stops)).tolist())
    assert seen == [[False, False], [False, False], [True, True], [False, True]]


@pytest.fixture(scope="module")
def samples(toy):
    """(stops, samples without them, with them, with them in slots), all of the same keys."""
    def run(params, stop, slots):
        sampling = SamplingParams(GROUP, TOKENS, toy.end, toy.pad, stop=stop, slots=slots)
        transform = make_transform(toy.vocab, temperature=3.0, blocked=[toy.image, toy.pad])
        return generate(toy.fns, params, toy.make_prompts(), jax.random.key(5), sampling, transform)

    run = jax.jit(run, static_argnums=(1, 2))
    free = jax.device_get(run(toy.params, (), 0))
    stop = common_runs(free)
    return stop, free, *jax.device_get([run(toy.params, stop, slots) for slots in (0, 20)])


def common_runs(samples):
    """The commonest runs of three tokens, of two and of one; none holds a token of another."""
    runs = []
    for size in (3, 2, 1):
        seen = collections.Counter(
            tuple(row[t:t + size].tolist()) for row, n in zip(
                samples.tokens.reshape(-1, TOKENS), samples.length.ravel(), strict=True)
            for t in range(n - size))       # but for the last, which may be the end token
        runs.append(next(run for run, _ in seen.most_common()
                         if not set(run) & {token for other in runs for token in other}))
    return tuple(runs)


def test_answers_are_cut_after_the_first_stop_and_else_the_same(toy, samples):
    stops, free, stopped, _ = samples
    ended_by = {stop: 0 for stop in (*stops, (toy.end,))}
    for row, length, ended, tokens in zip(
            free.tokens.reshape(-1, TOKENS), stopped.length.ravel(), stopped.ended.ravel(),
            stopped.tokens.reshape(-1, TOKENS), strict=True):
        ends = [t + 1 for t in range(TOKENS) for stop in ended_by
                if tuple(row[max(0, t + 1 - len(stop)):t + 1]) == stop]
        want = min(ends, default=TOKENS)
        assert (length, ended) == (want, bool(ends))
        np.testing.assert_array_equal(tokens[:want], row[:want])
        assert (tokens[want:] == toy.pad).all()
        for stop in ended_by:
            ended_by[stop] += ended and tuple(tokens[want - len(stop):want]) == stop
    assert all(ended_by.values()), ended_by


def test_slots_stop_at_the_same_places(samples):
    _, _, stopped, in_slots = samples
    np.testing.assert_array_equal(stopped.tokens, in_slots.tokens)
    np.testing.assert_array_equal(stopped.ended, in_slots.ended)


@pytest.mark.parametrize("stop, message", [
    (((),), r"one or more token ids, got \(\)"),
    (((4, -1),), r"one or more token ids, got \(4, -1\)"),
    (((1, 2, 3),), r"stop \(1, 2, 3\) has 3 tokens and an answer at most 2: it can never be met"),
])
def test_refusals(stop, message):
    with pytest.raises(ValueError, match=message):
        SamplingParams(1, 2, 1, 0, stop=stop)
