"""The kernels' rows against `xla` and against a plain softmax in float64, on whatever runs here.

On a CPU splash runs step by step (`interpret`), and cuDNN's call is made with JAX's own
implementation behind it: rows, masks and the kernels' gradients are what is tested. The kernels
themselves run where their device is.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

from guardjax.models.attention import (
    KeyPart,
    OwnTokens,
    attend_rows,
    attend_segments,
    cudnn,
    segment_attention,
    splash,
)
from guardjax.models.attention.tree import Run, SegmentTree, visible

B, N, G, K, R, D = 2, 3, 2, 2, 3, 16
SCALE = D**-0.5
KERNELS = {"cudnn": functools.partial(cudnn.attend, implementation="xla"),
           "splash": functools.partial(splash.attend, interpret=True)}
on_gpu = pytest.mark.skipif(jax.default_backend() != "gpu", reason="needs an NVIDIA GPU")
on_tpu = pytest.mark.skipif(jax.default_backend() != "tpu", reason="needs a TPU")


def normal(rng, *shape):
    return rng.standard_normal(shape).astype(np.float32)


def own_tokens(rng, lead, tokens):
    mask = rng.random((*lead, tokens)) < 0.8
    causal = np.tril(np.ones((tokens, tokens), bool))
    return OwnTokens(2 * normal(rng, *lead, K, R, tokens, D), normal(rng, *lead, K, tokens, D),
                     normal(rng, *lead, K, tokens, D), mask, mask[..., None, :] & causal)


def past_part(rng, lead, tokens):
    return KeyPart(normal(rng, *lead, K, tokens, D), normal(rng, *lead, K, tokens, D),
                   rng.random((*lead, 1, tokens)) < 0.7)


def make_case(name):
    """(segments, past)."""
    rng = np.random.default_rng(0)
    if name == "prompt and answers":    # 570 tokens: several blocks of 128, some never seen
        segments = [own_tokens(rng, (B + 1,), 300), own_tokens(rng, (B + 1, G + 1), 90)]
        segments[0].mask[0, :20] = False        # padded on the left: these see nothing
        segments[0].own_mask[0, :, :20] = False
        for segment in segments:                # a prompt of nothing but padding
            segment.mask[B], segment.own_mask[B] = False, False
        return segments, []
    return ([own_tokens(rng, (B,), 37), own_tokens(rng, (B, N), 9), own_tokens(rng, (B, N, G), 5)],
            [past_part(rng, (B,), 11)])


CASES = ("prompt and answers", "image, policies, answers after a past")


@functools.partial(jax.jit, static_argnums=0)
def outputs_and_gradients(kernel, segments, past):
    """Outputs, and gradients of a sum over real rows in every query, key and value."""
    weights = [np.random.default_rng(1).standard_normal(s.queries.shape).astype(np.float32)
               * s.mask[..., None, None, :, None] for s in segments]

    def loss(tensors, past_tensors):
        own = [OwnTokens(*three, s.mask, s.own_mask) for three, s in zip(tensors, segments)]
        before = [KeyPart(*two, p.mask) for two, p in zip(past_tensors, past)]
        outputs = attend_segments(own, before, scale=SCALE, backend=kernel)
        return sum((out * w).sum() for out, w in zip(outputs, weights)), outputs

    return jax.grad(loss, argnums=(0, 1), has_aux=True)(
        [s[:3] for s in segments], [p[:2] for p in past])[::-1]


@functools.cache
def by_xla(name):
    return outputs_and_gradients("xla", *make_case(name))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("kernel", KERNELS)
def test_values_and_gradients_are_those_of_xla(kernel, case):
    segments, past = make_case(case)
    outputs, gradients = outputs_and_gradients(KERNELS[kernel], segments, past)
    expected, expected_gradients = by_xla(case)
    for out, other, segment in zip(outputs, expected, segments):
        real = np.broadcast_to(segment.mask[..., None, None, :, None], out.shape)
        np.testing.assert_allclose(np.where(real, out, 0), np.where(real, other, 0), atol=5e-6)
        assert not np.any(np.where(real, 0, out))       # rows of padding are 0, and not NaN
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=3e-5), gradients,
                 expected_gradients)


@pytest.mark.parametrize("case", CASES)
def test_xla_is_the_plain_softmax_in_float64(case):
    """Parts joined by a common maximum and sum, against one softmax over repeated keys."""
    segments, past = make_case(case)
    outputs, _ = by_xla(case)
    for index, (segment, out) in enumerate(zip(segments, outputs)):
        before = [*past, *(KeyPart(s.keys, s.values, s.mask[..., None, :])
                           for s in segments[:index])]
        own = KeyPart(segment.keys, segment.values, segment.own_mask)
        np.testing.assert_allclose(out, plain_softmax(segment.queries, [*before, own]), atol=5e-6)


def plain_softmax(queries, parts):
    """Softmax attention in float64 with every part repeated and concatenated; 0 for no key."""
    lead, tokens = queries.shape[:-4], queries.shape[-2]

    def spread(x, tail):
        x = np.asarray(x).reshape(*x.shape[:-tail], *[1] * (len(lead) + tail - x.ndim),
                                  *x.shape[-tail:])
        return np.broadcast_to(x, (*lead, *x.shape[-tail:]))

    keys = np.concatenate([spread(p.keys, 3) for p in parts], axis=-2).astype(np.float64)
    values = np.concatenate([spread(p.values, 3) for p in parts], axis=-2).astype(np.float64)
    mask = np.concatenate([np.broadcast_to(spread(p.mask, 2), (*lead, tokens, p.mask.shape[-1]))
                           for p in parts], axis=-1)[..., None, None, :, :]
    scores = np.einsum("...krtd,...ksd->...krts", queries.astype(np.float64), keys) * SCALE
    weights = np.exp(scores - scores.max(-1, keepdims=True)) * mask
    total = weights.sum(-1, keepdims=True)
    weights = np.divide(weights, total, out=np.zeros_like(weights), where=total > 0)
    return np.einsum("...krts,...ksd->...krtd", weights, values)


@pytest.mark.parametrize("kernel", KERNELS)
def test_patches_see_their_own_frame(kernel):
    """Images: ids alone decide; frames of unlike sizes, padding between and behind them."""
    rng = np.random.default_rng(2)
    frame = np.full((B, 200), -1, np.int32)
    frame[0, :70], frame[0, 80:150], frame[1, 3:9] = 0, 1, 0
    queries, keys, values = (normal(rng, B, 4, 200, D) for _ in range(3))
    weights = normal(rng, B, 4, 200, D)

    def by_kernel(q, k, v):
        out = attend_rows(q, k, v, frame, frame, None, scale=SCALE, backend=KERNELS[kernel])
        return (out * weights).sum(), out

    def by_xla_mask(q, k, v):
        mask = (frame[:, :, None] == frame[:, None, :]) & (frame >= 0)[:, None, :]
        out = segment_attention(q[:, :, None], [KeyPart(k, v, mask)], scale=SCALE)[:, :, 0]
        return (out * weights).sum(), out

    found, expected = (jax.jit(jax.grad(f, (0, 1, 2), has_aux=True))(queries, keys, values)
                       for f in (by_kernel, by_xla_mask))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=3e-5), found, expected)


@pytest.mark.parametrize("tree, shared", [
    (SegmentTree((Run(1, 9), Run(3, 4))), 9), (SegmentTree((Run(1, 5), Run(1, 6), Run(2, 3))), 11),
    (SegmentTree((Run(1, 5), Run(1, 6), Run(2, 3)), first_query=2), 11),
    (SegmentTree((Run(1, 5), Run(1, 6), Run(2, 3)), first_query=1), 11),
    (SegmentTree((Run(1, 7),)), 0), (SegmentTree((Run(4, 3),)), 0)])
def test_a_mask_computed_from_spans_is_that_of_the_tree(tree, shared):
    length, seen = tree.num_queries + 2, tree.num_keys + 3
    mask = splash._tree_mask(tree, length, seen)
    assert tree.spans(length).shared == shared
    expected = visible(tree.query_table(length), tree.key_table(seen))
    places = np.arange(seen, dtype=np.int32)
    for array in (np.asarray, jnp.asarray):     # of the plan, and of the kernel
        found = mask.mask_function(array(mask.q_sequence)[:, None], array(places)[None])
        assert found.dtype == bool
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("tree, seen", [
    (SegmentTree((Run(1, 5), Run(2, 3), Run(4, 2))), 128),
    (SegmentTree((Run(1, 40_000),)), 40_064)])
def test_other_masks_are_read_by_the_kernel(tree, seen):
    """Branches of branches, and rows of which two places do not fit into a number."""
    assert not hasattr(splash._tree_mask(tree, seen, seen), "mask_function")


def test_the_tree_is_what_the_segments_say():
    """Against a walk over tokens: (run, branch in its axes, place)."""
    shapes = [((), 3), ((2,), 2), ((2, 3), 2)]
    tokens = [(run, branch, place) for run, (axes, length) in enumerate(shapes)
              for branch in np.ndindex(*axes) for place in range(length)]
    expected = np.array([[run < own or (run == own and branch == mine and place <= now)
                          if branch == mine[:len(branch)] else False
                          for run, branch, place in tokens] for own, mine, now in tokens])
    tree = SegmentTree(tuple(Run(int(np.prod(axes)), n) for axes, n in shapes), first_query=1)
    found = visible(tree.query_table(20), tree.key_table(24))
    np.testing.assert_array_equal(found[:16, :19], expected[3:])
    np.testing.assert_array_equal(found[16:], np.arange(24)[None, :] == np.zeros((4, 1)))
    assert not found[:, 19:].any()


def test_prompts_are_not_repeated():
    """No array of the program holds the prompt's keys once an answer."""
    segments, past = make_case("prompt and answers")
    program = jax.make_jaxpr(functools.partial(outputs_and_gradients, KERNELS["cudnn"]))(
        segments, past)
    row = sum(s.keys.size for s in segments) * R        # the queries: the row with all its heads
    largest = max(v.aval.size for v in variables(program.jaxpr) if D in v.aval.shape)
    assert largest <= row * 576 / 570


def variables(jaxpr):
    for eqn in jaxpr.eqns:
        yield from eqn.outvars
        for inner in jaxprs_in_params(eqn.params):
            yield from variables(inner)


def test_leading_axes_that_do_not_grow_are_refused():
    rng = np.random.default_rng(3)
    with pytest.raises(ValueError, match="cannot be shared"):
        attend_segments([own_tokens(rng, (B, G), 4), own_tokens(rng, (B, N), 4)], [], scale=SCALE,
                        backend="cudnn")


def test_a_step_of_decoding_takes_xla_and_no_kernel():
    rng = np.random.default_rng(4)
    step = own_tokens(rng, (B, G), 1)
    before = [past_part(rng, (B,), 11)]
    programs = [str(jax.make_jaxpr(functools.partial(attend_segments, scale=SCALE, backend=name))(
        [step], before)) for name in ("xla", "no kernel is asked for")]
    assert programs[0] == programs[1]


def built_for(kernel, platform):
    """The program of values and gradients for a platform, built without its device."""
    segments, past = make_case("image, policies, answers after a past")
    half = functools.partial(jax.tree.map, lambda x: jnp.asarray(
        x, jnp.bfloat16 if x.dtype == np.float32 else x.dtype))
    traced = outputs_and_gradients.trace(kernel, half(segments), half(past))
    return traced.lower(lowering_platforms=(platform,)).as_text()


def test_splash_builds_for_a_tpu():
    """That the program is made: three kernels (values, dq, dk and dv). Not that it runs."""
    assert built_for(splash.attend, "tpu").count("tpu_custom_call") >= 3


def test_cudnn_builds_for_a_gpu(monkeypatch):
    """That the program is made: both kernels are asked for by name. Not that they run."""
    # Private, and the only question that is put to the device; in jax 0.10.2 and 0.11.2 alike.
    monkeypatch.setattr("jax._src.cudnn.fused_attention_stablehlo.check_cudnn_version",
                        lambda: 91000)
    text = built_for(cudnn.attend, "cuda")
    assert "fmhaScaleBiasSoftmaxBackward" in text and text.count("fmhaScaleBiasSoftmax") >= 2


@on_gpu
@pytest.mark.parametrize("case", CASES)
def test_cudnn_on_its_device(case):
    check_on_device("cudnn", case)


@on_tpu
@pytest.mark.parametrize("case", CASES)
def test_splash_on_its_device(case):
    check_on_device("splash", case)


def check_on_device(kernel, case):
    """bfloat16 against xla in float32 of the same numbers: within what the type can hold."""
    segments, past = make_case(case)
    half = functools.partial(jax.tree.map, lambda x: jnp.asarray(
        x, jnp.bfloat16 if x.dtype == np.float32 else x.dtype))
    wide = functools.partial(jax.tree.map, lambda x: x.astype(jnp.float32)
                             if x.dtype == jnp.bfloat16 else x)
    outputs, gradients = wide(outputs_and_gradients(kernel, half(segments), half(past)))
    with jax.default_matmul_precision("highest"):
        expected = outputs_and_gradients("xla", wide(half(segments)), wide(half(past)))
    for out, other, segment in zip(outputs, expected[0], segments):
        real = segment.mask[..., None, None, :, None]
        np.testing.assert_allclose(out * real, other * real, atol=0.03)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=0.03 * np.abs(b).max() + 0.03),
                 gradients, expected[1])
