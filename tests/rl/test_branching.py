"""Prompts that branch from one trunk against the same prompts repeated whole for every answer.

Pictures, M-RoPE, a key/value cache and gradients are the real architecture's, small; both templates
are asked: policies under one picture, and pictures under one policy.
"""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from guardjax import models
from guardjax.cli.assets import model_dir
from guardjax.data.batching import load_batcher
from guardjax.data.branching import branch_prompts
from guardjax.data.prompts import IMAGE_FIRST, POLICY_FIRST, PromptError
from guardjax.models import qwen2_5_vl
from guardjax.models.attention import cudnn, splash
from guardjax.models.tiny import tiny_config
from guardjax.rl.answers import completion_mask
from guardjax.rl.logprobs import next_token_logits, token_logprobs
from guardjax.rl.model_fns import bind, encode_vision
from guardjax.rl.sampling import SamplingParams, generate
from guardjax.rl.transform import make_transform
from guardjax.types import PolicyExample, Segment

TRUNKS, M, G, T = 2, 3, 2, 4
B = TRUNKS * M
BATCHER = load_batcher(model_dir("base"))
POLICIES = ("no knives", "R1: nothing red. R2: no dogs in a garden at night, and no hats",
            "no cats")
KERNELS = {"cudnn": functools.partial(cudnn.attend, implementation="xla"),
           "splash": functools.partial(splash.attend, interpret=True)}
CHUNKS = {"token_chunk": 3, "vocab_chunk": 100}
SLOW = pytest.mark.slow


def small_config() -> models.ModelConfig:
    width = -(-BATCHER.tokenizer.vocab_size // 64) * 64
    cfg = tiny_config(width, first_special_id=BATCHER.tokenizer.pad_id)
    text = dataclasses.replace(
        cfg.text, num_hidden_layers=2, hidden_size=32, intermediate_size=48, num_attention_heads=4,
        num_key_value_heads=2, mrope_section=(1, 1, 2))
    vision = dataclasses.replace(
        cfg.vision, depth=1, hidden_size=32, intermediate_size=48, fullatt_block_indexes=(0,),
        out_hidden_size=32)
    return dataclasses.replace(cfg, text=text, vision=vision)


CFG = small_config()
FNS = bind(models, CFG)
TRANSFORM = make_transform(CFG.text.vocab_size, temperature=1.3,
                           blocked=BATCHER.tokenizer.forbidden_ids())


@pytest.fixture(scope="module")
def params():
    return jax.jit(lambda key: models.init_params(CFG, key))(jax.random.key(0))


def batcher_of(template):
    return dataclasses.replace(BATCHER, template=template)


def examples_of(template):
    """Six prompts: by the picture, or by the policy, three at a time."""
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (M, 64, 64, 3)).astype(np.uint8)
    outer, inner = range(TRUNKS), range(M)
    chosen = [(p, m) if template == POLICY_FIRST else (m, p) for p in outer for m in inner]
    return [PolicyExample(f"{policy}/{picture}", "judge", "does it follow the policy?",
                          POLICIES[policy], pictures[picture]) for policy, picture in chosen]


def answers(seed=1):
    rng = np.random.default_rng(seed)
    length = rng.integers(1, T + 1, (B, G)).astype(np.int32)
    length[0, 0], length[0, 1] = T, 0           # a full one, and one that is empty
    return rng.integers(3, 60, (B, G, T)).astype(np.int32), length


def repeated(template, params, tokens, length):
    """Log-probabilities of whole plain sequences [B * G], each with a picture of its own."""
    batcher = batcher_of(template)
    encoded = [e for e in batcher.encode(examples_of(template)) for _ in range(G)]
    width = max(len(e.ids) for e in encoded) + T
    plain = Segment(np.zeros((B * G, width), np.int32), np.zeros((B * G, width, 3), np.int32),
                    np.zeros((B * G, width), bool), np.full((B * G, width), -1, np.int32))
    places = np.zeros((B * G, T), np.int32)
    for row, prompt in enumerate(encoded):
        num, answer = len(prompt.ids), np.asarray(tokens).reshape(-1, T)[row]
        plain.tokens[row, :num + T] = [*prompt.ids, *answer]
        plain.positions[row, :num + T] = [
            *prompt.positions, *(prompt.next_pos + np.repeat(np.arange(T)[:, None], 3, 1))]
        plain.feature_index[row, :num] = prompt.features
        plain.mask[row, :num + int(np.asarray(length).reshape(-1)[row])] = True
        places[row] = num - 1 + np.arange(T)
    features = FNS.encode(params, batcher.pack(encoded))
    (hidden,), _ = FNS.forward(params, (plain,), features, None)
    logits = TRANSFORM(FNS.unembed(params, jnp.take_along_axis(hidden, places[..., None], axis=1)))
    logp = jnp.take_along_axis(jax.nn.log_softmax(logits), tokens.reshape(-1, T, 1), axis=-1)
    return jnp.where(completion_mask(length, T), logp.reshape(B, G, T), 0)


@functools.cache
def oracle(template):
    """(log-probabilities, gradient of a weighted sum of them), every prompt repeated."""
    params = models.init_params(CFG, jax.random.key(0))
    tokens, length = answers()
    return jax.jit(jax.value_and_grad(
        lambda p: (lambda logp: (weigh(logp), logp))(repeated(template, p, tokens, length)),
        has_aux=True))(params)


def weigh(logp):
    return (logp * np.random.default_rng(2).standard_normal(logp.shape)).sum()


def branched(fns, params, template, **options):
    tokens, length = answers()
    prompts = branch_prompts(batcher_of(template), examples_of(template), M)
    return jax.jit(jax.value_and_grad(
        lambda p: (lambda logp: (weigh(logp), logp))(
            token_logprobs(fns, p, prompts, tokens, length, TRANSFORM, **options)[0]),
        has_aux=True))(params)


def assert_exact(found, expected):
    """Log-probabilities within 2e-5 * max(1, |logp|), gradients within 1e-4 of their norm."""
    (_, logp), grads = found
    (_, want), want_grads = expected
    assert (np.abs(logp - want) <= 2e-5 * np.maximum(1, np.abs(want))).all()
    assert np.abs(want).max() > 1
    for (path, one), other in zip(jax.tree_util.tree_leaves_with_path(grads),
                                  jax.tree.leaves(want_grads), strict=True):
        assert np.linalg.norm(one - other) <= 1e-4 * np.linalg.norm(other), path
        # A tower's key biases move no softmax: their gradient is rounding alone.
    assert jax.tree.reduce(lambda a, b: a + b, jax.tree.map(lambda g: np.abs(g).sum(), grads)) > 1


@pytest.mark.parametrize("template, chunks", [
    (IMAGE_FIRST, {}), (POLICY_FIRST, CHUNKS), pytest.param(IMAGE_FIRST, CHUNKS, marks=SLOW),
    pytest.param(POLICY_FIRST, {}, marks=SLOW)])
def test_log_probabilities_and_gradients_are_those_of_repeating(params, template, chunks):
    assert_exact(branched(FNS, params, template, **chunks), oracle(template))


@pytest.mark.slow
@pytest.mark.parametrize("kernel", KERNELS)
def test_kernels_take_the_branches_as_one_row(params, kernel, monkeypatch):
    """The decoder by the kernels' rows and their own gradient, interpreted on this device."""
    decoder = qwen2_5_vl.TextDecoder
    monkeypatch.setattr(qwen2_5_vl, "TextDecoder", lambda text, dtype, _, scan, remat: decoder(
        text, dtype, KERNELS[kernel], scan, remat))
    assert_exact(branched(FNS, params, IMAGE_FIRST), oracle(IMAGE_FIRST))


def test_layers_in_a_loop_take_the_branches(params):
    cfg = dataclasses.replace(CFG, scan_layers=True, remat="full")
    fns, stacked = bind(models, cfg), models.init_params(cfg, jax.random.key(0))
    tokens, length = answers()
    prompts = branch_prompts(BATCHER, examples_of(IMAGE_FIRST), M)
    logp, _ = jax.jit(lambda p: token_logprobs(fns, p, prompts, tokens, length, TRANSFORM))(stacked)
    want = oracle(IMAGE_FIRST)[0][1]
    assert (np.abs(logp - want) <= 2e-5 * np.maximum(1, np.abs(want))).all()


@pytest.mark.parametrize("template, slots", [
    (IMAGE_FIRST, 0), (POLICY_FIRST, 5), pytest.param(IMAGE_FIRST, 5, marks=SLOW),
    pytest.param(POLICY_FIRST, 0, marks=SLOW)])
def test_sampling_is_that_of_prompts_on_their_own(params, template, slots):
    """The same tokens together and in slots; log-probabilities are those that are recomputed."""
    end = CFG.text.eos_token_id
    blocked = [t for t in range(8, CFG.text.vocab_size) if t != end]
    transform = make_transform(CFG.text.vocab_size, temperature=1.5, blocked=blocked)
    sampling = SamplingParams(G, T, end, BATCHER.tokenizer.pad_id, slots=slots)
    examples, batcher = examples_of(template), batcher_of(template)
    sample = jax.jit(lambda p, prompts: generate(
        FNS, p, prompts, jax.random.key(4), sampling, transform))
    alone = sample(params, batcher.prompts(examples))
    prompts = branch_prompts(batcher, examples, M)
    found = sample(params, prompts)
    assert found.tokens.shape == (B, G, T) and len(np.unique(found.length)) > 1
    np.testing.assert_array_equal(found.tokens, alone.tokens)
    np.testing.assert_array_equal(found.ended, alone.ended)
    np.testing.assert_allclose(found.logp, alone.logp, atol=2e-5)
    logp, _ = jax.jit(lambda p: token_logprobs(
        FNS, p, prompts, found.tokens, found.length, transform))(params)
    np.testing.assert_allclose(found.logp, logp, atol=2e-5)


@pytest.mark.slow
def test_a_picture_is_encoded_once_and_what_is_shared_is_nowhere_repeated(params):
    prompts = branch_prompts(BATCHER, examples_of(IMAGE_FIRST), M)
    rows = []
    fns = dataclasses.replace(FNS, encode=lambda p, vision: (
        rows.append(vision.frame.shape[0]), FNS.encode(p, vision))[1])
    features = encode_vision(fns, params, prompts)
    assert rows == [TRUNKS] and features.shape[0] == TRUNKS
    logits = next_token_logits(fns, params, prompts, features=features)
    assert rows == [TRUNKS] and logits.shape == (B, CFG.text.vocab_size)
    _, cache = FNS.forward(params, prompts.segments, features, None)
    length = prompts.trunk.tokens.shape[-1]
    assert [segment.mask.shape for segment in cache.closed] == [
        (TRUNKS, length), (TRUNKS, M, prompts.prompt.tokens.shape[-1])]


def test_another_picture_changes_its_own_branches_only(params):
    prompts = branch_prompts(BATCHER, examples_of(IMAGE_FIRST), M)
    patches = prompts.vision.patches.copy()
    patches[1] *= -1
    other = prompts.replace(vision=prompts.vision.replace(patches=patches))
    ask = jax.jit(lambda prompts: next_token_logits(FNS, params, prompts))
    gap = np.abs(ask(prompts) - ask(other)).max(axis=1).reshape(TRUNKS, M)
    assert (gap[0] == 0).all() and (gap[1] > 1e-4).all()


def test_prompts_that_begin_differently_are_refused():
    examples = examples_of(IMAGE_FIRST)
    mixed = [examples[0], examples[M], examples[1]]
    with pytest.raises(PromptError, match="begin differently.*one picture"):
        branch_prompts(BATCHER, mixed, M)
    with pytest.raises(PromptError, match="begin differently.*one policy"):
        branch_prompts(batcher_of(POLICY_FIRST), examples[:M], M)
    with pytest.raises(ValueError, match="6 prompts do not divide into trunks of 4"):
        branch_prompts(BATCHER, examples, 4)
