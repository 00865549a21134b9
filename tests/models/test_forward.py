"""One model, called in different ways, must say the same: segments, cache, padding, order."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from guardjax.models import qwen2_5_vl as model
from guardjax.models.cache import KVCache, open_buffer
from guardjax.types import Segment, VisionInputs
from tests.models.reference_cases import SMALLEST, UNTIED, make_inputs, make_row

B, G, T = 2, 3, 4
CFG = SMALLEST


@pytest.fixture(scope="module", autouse=True)
def _quick(quick_compilation):
    """All programs here are small."""


@pytest.fixture(name="params", scope="module")
def make_params():
    return model.init_params(CFG, jax.random.key(0))


@pytest.fixture(name="prompt", scope="module")
def make_prompt():
    """Two prompts of different lengths, with one and with two images."""
    return make_inputs(CFG, [make_row(CFG, "odd_grid"), make_row(CFG, "two_images")])


@pytest.fixture(name="answers", scope="module")
def make_answers(prompt):
    """[B, G, T] tokens that go on after each prompt; one answer is shorter than T."""
    start = prompt[0].positions.max(axis=(1, 2)) + 1
    positions = np.broadcast_to(start[:, None, None, None] + np.arange(T)[:, None], (B, G, T, 3))
    mask = np.ones((B, G, T), bool)
    mask[0, 1, 2:] = False
    tokens = np.random.default_rng(0).integers(0, 80, (B, G, T), dtype=np.int32)
    return Segment(tokens, positions.astype(np.int32), mask)


def repeat(x: np.ndarray) -> np.ndarray:
    """[B, ...] to [B * G, ...], groups contiguous."""
    return np.repeat(x, G, axis=0)


def joined(prompt: Segment, answers: Segment) -> Segment:
    """[B * G, P + T]: every prompt repeated before each of its answers."""
    def join(name):
        after = getattr(answers, name)
        return np.concatenate([repeat(getattr(prompt, name)),
                               after.reshape(B * G, *after.shape[2:])], axis=1)
    text = np.full((B * G, T), -1, np.int32)
    index = np.concatenate([repeat(prompt.feature_index), text], axis=1)
    return Segment(join("tokens"), join("positions"), join("mask"), index)


@functools.partial(jax.jit, static_argnums=1)
def run(params, cfg, segments, vision, cache=None):
    features = None if vision is None else model.encode_images(params, cfg, vision)
    return model.forward(params, cfg, segments, features, cache)


def answer_logits_by_segments(params, prompt, vision, answers):
    (_, hidden), _ = run(params, CFG, (prompt, answers), vision)
    return model.unembed(params, CFG, hidden)


def answer_logits_by_repeating(params, prompt, vision, answers):
    (hidden,), _ = run(params, CFG, (joined(prompt, answers),), jax.tree.map(repeat, vision))
    return model.unembed(params, CFG, hidden[:, -T:]).reshape(B, G, T, -1)


def test_segments_equal_repeating_everything_in_value_and_gradient(params, prompt, answers):
    def loss_and_logits(params, answer_logits):
        logits = answer_logits(params, *prompt, answers)
        logp = jax.nn.log_softmax(logits)
        chosen = jnp.take_along_axis(logp, answers.tokens[..., None], axis=-1)[..., 0]
        return -jnp.where(answers.mask, chosen, 0.0).sum() / answers.mask.sum(), logits

    both = jax.jit(jax.value_and_grad(loss_and_logits, has_aux=True), static_argnums=1)
    (_, logits), gradient = both(params, answer_logits_by_segments)
    (_, oracle_logits), oracle = both(params, answer_logits_by_repeating)
    np.testing.assert_allclose(logits[answers.mask], oracle_logits[answers.mask], atol=1e-5)
    largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(oracle))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4 * largest), gradient,
                 oracle)
    assert all(np.any(leaf) for leaf in jax.tree.leaves(gradient["visual"]))


def test_three_growing_segments_equal_one(params):
    """Image [B], two policies each [B, N], answers [B, N, G], against the rows written out."""
    row = make_row(CFG, "odd_grid")
    image, vision = make_inputs(CFG, [row])
    rng = np.random.default_rng(1)
    start = int(image.positions.max()) + 1

    def text(lead, length, first):
        positions = np.broadcast_to(first + np.arange(length)[:, None], (*lead, length, 3))
        return Segment(rng.integers(0, 80, (*lead, length), dtype=np.int32),
                       positions.astype(np.int32), np.ones((*lead, length), bool))

    policies, answers = text((1, 2), 5, start), text((1, 2, 3), 4, start + 5)
    (_, _, hidden), _ = run(params, CFG, (image, policies, answers), vision)
    for n, g in np.ndindex(2, 3):
        one = jax.tree.map(lambda *parts: np.concatenate(parts, axis=1), *[
            Segment(s.tokens[i], s.positions[i], s.mask[i], np.full_like(s.tokens[i], -1))
            for s, i in ((policies, (slice(None), n)), (answers, (slice(None), n, g)))])
        (_, expected), _ = run(params, CFG, (image, one), vision)
        np.testing.assert_allclose(hidden[:, n, g], expected[:, 5:], atol=1e-5)


@pytest.mark.parametrize("step", [1, 2])
def test_prefill_and_decode_equal_one_pass(params, prompt, answers, step):
    (_, expected), _ = run(params, CFG, (prompt[0], answers), prompt[1])
    (_,), cache = run(params, CFG, prompt[:1], prompt[1])
    cache = open_buffer(CFG, cache, (B, G), T + 3)
    for t in range(0, T, step):
        piece = jax.tree.map(lambda x: x[:, :, t:t + step], answers)
        (hidden,), cache = run(params, CFG, (piece,), None, cache)
        np.testing.assert_allclose(hidden, expected[:, :, t:t + step], atol=1e-5)
    assert int(cache.open.length) == T


def test_a_cached_prompt_serves_whole_answers(params, prompt, answers):
    (_, expected), _ = run(params, CFG, (prompt[0], answers), prompt[1])
    _, cache = run(params, CFG, prompt[:1], prompt[1])
    (hidden,), cache = run(params, CFG, (answers,), None, cache)
    np.testing.assert_allclose(hidden, expected, atol=1e-5)
    assert [c.mask.shape for c in cache.closed] == [prompt[0].mask.shape, (B, G, T)]


def test_padding_does_not_change_results(params):
    """More token padding, more patch slots and more rows leave each row as it is alone."""
    rows = [make_row(CFG, name) for name in ("odd_grid", "two_images")]
    segment, vision = make_inputs(CFG, rows, length=60, num_slots=160)
    (padded,), _ = run(params, CFG, (segment,), vision)
    for number, row in enumerate(rows):
        alone, its_vision = make_inputs(CFG, [row])
        (expected,), _ = run(params, CFG, (alone,), its_vision)
        np.testing.assert_allclose(padded[number, :len(row.tokens)], expected[0], atol=1e-5)


def test_padded_patches_get_no_gradient(params, prompt):
    _, vision = prompt

    @jax.jit
    @jax.grad
    def gradient_of(patches):
        features = model.encode_images(params, CFG, vision.replace(patches=patches))
        return features[real_units].sum()

    real_units = vision.frame[:, ::CFG.vision.spatial_merge_size**2] >= 0
    gradient = np.asarray(gradient_of(vision.patches))
    assert np.isfinite(gradient).all()
    assert not gradient[vision.frame < 0].any() and gradient[vision.frame >= 0].any()


def test_bfloat16_computes_in_bfloat16_and_unembeds_in_float32(params, prompt):
    cfg = dataclasses.replace(CFG, dtype="bfloat16")
    (hidden,), cache = run(params, cfg, prompt[:1], prompt[1])
    logits = model.unembed(params, cfg, hidden)
    assert hidden.dtype == cache.closed[0].keys[0].dtype == jnp.bfloat16
    assert logits.dtype == jnp.float32
    (exact,), _ = run(params, CFG, prompt[:1], prompt[1])
    exact = model.unembed(params, CFG, exact)
    assert np.abs(logits - exact)[prompt[0].mask].max() < 0.05 * np.abs(exact).max()


def test_untied_head_is_a_leaf_of_its_own():
    params = model.init_params(UNTIED, jax.random.key(0))
    assert params["lm_head"]["kernel"].shape == (UNTIED.text.hidden_size, UNTIED.text.vocab_size)
    hidden = jnp.ones((2, UNTIED.text.hidden_size))
    np.testing.assert_allclose(model.unembed(params, UNTIED, hidden),
                               hidden @ params["lm_head"]["kernel"], atol=1e-6)


def test_misuse_is_refused(params, prompt, answers):
    segment, vision = prompt
    with pytest.raises(ValueError, match="at least one segment"):
        model.forward(params, CFG, [])
    with pytest.raises(ValueError, match="no features"):
        run(params, CFG, (segment,), None)
    with pytest.raises(ValueError, match="cannot be shared"):
        run(params, CFG, (answers, segment.replace(feature_index=None)), None)
    cache = open_buffer(CFG, KVCache(), (B, G), T - 1)
    with pytest.raises(ValueError, match=r"shape \(2, 3, 4\) does not fit .* \(2, 3, 3\)"):
        model.forward(params, CFG, [answers], None, cache)
    with pytest.raises(ValueError, match="one segment at a time, not 2"):
        model.forward(params, CFG, [answers, answers], None, cache)
    with pytest.raises(ValueError, match="already has an open buffer"):
        open_buffer(CFG, cache, (B, G), T)
    with pytest.raises(ValueError, match="expected a multiple of 16 patches of length 96"):
        model.encode_images(params, CFG, VisionInputs(vision.patches[:, 1:], vision.hw[:, 1:],
                                                      vision.frame[:, 1:]))
