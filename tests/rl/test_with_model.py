"""`rl` over the real architecture, small: pictures, M-RoPE, the key/value cache, one update."""

from __future__ import annotations

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from guardjax import layout, models
from guardjax.models.tiny import tiny_config
from guardjax.rl.advantages import group_advantages
from guardjax.rl.answers import completion_mask
from guardjax.rl.logprobs import token_logprobs
from guardjax.rl.losses import LossParams, policy_loss
from guardjax.rl.model_fns import bind
from guardjax.rl.sampling import SamplingParams, generate
from guardjax.rl.transform import make_transform
from guardjax.types import PromptBatch, Segment

G, T = 4, 6


@pytest.fixture(scope="module")
def guard():
    """(cfg, fns, params) of a two-layer model with 48 tokens; the specials end the vocabulary."""
    cfg = tiny_config(48)
    cfg = dataclasses.replace(
        cfg,
        text=dataclasses.replace(cfg.text, num_hidden_layers=2),
        vision=dataclasses.replace(cfg.vision, depth=1, fullatt_block_indexes=(0,)),
    )
    params = jax.jit(lambda key: models.init_params(cfg, key))(jax.random.key(0))
    return cfg, bind(models, cfg), params


@pytest.fixture(scope="module")
def prompts(guard):
    """Three prompts of 12, 23 and 5 tokens; two have a picture, of 4 and of 6 features."""
    cfg, _, _ = guard
    rng = np.random.default_rng(0)
    width, patch_dim = 29, cfg.vision.patch_dim
    merge, side = cfg.vision.spatial_merge_size, cfg.vision.window_units
    grids = [[(1, 4, 4)], [(1, 4, 6)], []]
    layouts = [layout.vision_layout(g, window_units=side, merge=merge) for g in grids]
    patches = [
        rng.normal(size=(sum(t * h * w for t, h, w in g), patch_dim)).astype(np.float32)
        for g in grids
    ]
    tokens = np.zeros((3, width), np.int32)
    index = np.full((3, width), -1, np.int32)
    positions = np.zeros((3, width, 3), np.int32)
    mask = np.zeros((3, width), bool)
    next_pos = np.zeros(3, np.int32)
    for row, length in enumerate((12, 23, 5)):
        words = rng.integers(1, 30, length).astype(np.int32)
        words[1 : 1 + len(layouts[row].unit_index)] = cfg.image_token_id
        tokens[row, :length], mask[row, :length] = words, True
        positions[row, :length], next_pos[row] = layout.mrope_positions(
            words, grids[row], image_token_id=cfg.image_token_id, merge=merge
        )
        index[row, :length] = layout.feature_index(
            words, layouts[row], image_token_id=cfg.image_token_id
        )
    slots = max(each.num_slots for each in layouts)
    vision = layout.pack_vision(layouts, patches, slots, patch_dim)
    batch = PromptBatch(Segment(tokens, positions, mask, index), next_pos, vision)
    return jax.tree.map(jnp.asarray, batch)


@pytest.fixture(scope="module")
def transform(guard):
    cfg, _, _ = guard
    special = range(cfg.text.bos_token_id, cfg.text.vocab_size)
    blocked = [token for token in special if token != cfg.text.eos_token_id]
    return make_transform(cfg.text.vocab_size, temperature=1.2, blocked=blocked)


@pytest.fixture(scope="module")
def rollout(guard, transform):
    cfg, fns, _ = guard
    sampling = SamplingParams(G, T, cfg.text.eos_token_id, cfg.text.pad_token_id)
    return jax.jit(
        lambda params, prompts, key: generate(fns, params, prompts, key, sampling, transform)
    )


@pytest.mark.parametrize("tied", [True, False])
def test_the_head_is_what_unembedding_multiplies_with(guard, tied):
    cfg, _, params = guard
    cfg = dataclasses.replace(cfg, tie_word_embeddings=tied)
    rng = np.random.default_rng(0)
    hidden = rng.normal(size=(2, 3, cfg.text.hidden_size)).astype(np.float32)
    kernel = rng.normal(size=(cfg.text.hidden_size, cfg.text.vocab_size)).astype(np.float32)
    params = dict(params) if tied else params | {"lm_head": {"kernel": jnp.asarray(kernel)}}
    fns = bind(models, cfg)
    head = fns.head(params)
    assert head.weight.shape[head.vocab_axis] == cfg.text.vocab_size
    for some in (hidden, hidden[:1, :1]):       # a single row goes another way
        np.testing.assert_allclose(head.product(some, head.weight), fns.unembed(params, some),
                                   rtol=1e-5, atol=1e-5)


def test_an_adapter_of_the_head_is_in_both(guard):
    cfg, _, params = guard
    cfg = dataclasses.replace(cfg, tie_word_embeddings=False)
    rng = np.random.default_rng(1)
    width, words = cfg.text.hidden_size, cfg.text.vocab_size
    leaves = {name: jnp.asarray(rng.normal(size=shape), jnp.float32) for name, shape in (
        ("kernel", (width, words)), ("lora_a", (width, 3)), ("lora_b", (3, words)))}
    hidden = rng.normal(size=(2, 5, width)).astype(np.float32)
    fns, params = bind(models, cfg), params | {"lm_head": leaves}
    head = fns.head(params)
    np.testing.assert_allclose(head.product(hidden, head.weight), fns.unembed(params, hidden),
                               rtol=1e-5, atol=1e-4)


def test_sampled_equals_recomputed_equals_repeated(guard, prompts, transform, rollout):
    """Decoding with a cache, one shared forward, and whole plain sequences agree to 2e-5."""
    _, fns, params = guard
    samples = rollout(params, prompts, jax.random.key(3))
    tokens, length = samples.tokens, samples.length
    logp, _ = jax.jit(
        lambda p: token_logprobs(fns, p, prompts, tokens, length, transform, token_chunk=7,
                                 vocab_chunk=20)
    )(params)
    np.testing.assert_allclose(samples.logp, logp, atol=2e-5)

    plain, first = _repeated(prompts, tokens, length)

    def whole(params):
        features = jnp.repeat(fns.encode(params, prompts.vision), G, axis=0)
        (hidden,), _ = fns.forward(params, (plain,), features, None)
        return jax.nn.log_softmax(transform(fns.unembed(params, hidden)))

    every = np.asarray(jax.jit(whole)(params))
    places = np.minimum(first[:, None] + np.arange(T), plain.tokens.shape[1] - 1)
    flat = np.asarray(tokens).reshape(-1, T)
    want = every[np.arange(len(flat))[:, None], places, flat].reshape(tokens.shape)
    want = np.where(completion_mask(length, T), want, 0)
    np.testing.assert_allclose(logp, want, atol=2e-5)


def _repeated(prompts, tokens, length):
    """Every completion as a sequence of its own [B * G, P + T], and where its answer begins."""
    prompt, tokens, length = jax.tree.map(np.asarray, (prompts.prompt, tokens, length))
    rows = tokens.shape[0] * tokens.shape[1]
    width = prompt.tokens.shape[1] + T
    plain = Segment(
        tokens=np.zeros((rows, width), np.int32),
        positions=np.zeros((rows, width, 3), np.int32),
        mask=np.zeros((rows, width), bool),
        feature_index=np.full((rows, width), -1, np.int32),
    )
    first = np.zeros(rows, np.int32)
    for row, (b, g) in enumerate(np.ndindex(tokens.shape[:2])):
        real, num = int(prompt.mask[b].sum()), int(length[b, g])
        for name in ("tokens", "positions", "feature_index"):
            getattr(plain, name)[row, :real] = getattr(prompt, name)[b, :real]
        plain.tokens[row, real : real + num] = tokens[b, g, :num]
        steps = int(prompts.next_pos[b]) + np.arange(num)
        plain.positions[row, real : real + num] = steps[:, None]
        plain.mask[row, : real + num] = True
        first[row] = real - 1
    return plain, first


def test_pictures_matter(guard, prompts, rollout):
    """Another picture changes the rows that have one, and only these."""
    _, _, params = guard
    one = rollout(params, prompts, jax.random.key(0))
    other = prompts.replace(vision=prompts.vision.replace(patches=-prompts.vision.patches))
    turned = rollout(params, other, jax.random.key(0))
    gap = np.abs(np.asarray(one.logp) - np.asarray(turned.logp)).max((1, 2))
    assert (gap[:2] > 1e-3).all() and gap[2] == 0
    assert rollout._cache_size() == 1


def test_a_few_updates_raise_the_reward(guard, prompts, transform, rollout):
    """GRPO on a reward for one word, over a frozen tower: it comes to be said."""
    _, fns, params = guard
    word = 7
    features = jax.jit(fns.encode)(params, prompts.vision)
    loss_params = LossParams()

    @jax.jit
    def update(params, samples, rewards):
        advantages = group_advantages(rewards)
        mask = completion_mask(samples.length, T)

        def loss(params):
            logp, _ = token_logprobs(
                fns, params, prompts, samples.tokens, samples.length, transform, features=features
            )
            sums = policy_loss(logp, None, None, advantages, mask, loss_params)
            return sums.loss / sums.count

        grads = jax.grad(loss)(params)
        norm = jnp.sqrt(sum(jnp.sum(g**2) for g in jax.tree.leaves(grads)))
        return jax.tree.map(lambda p, g: p - 0.3 * g / (norm + 1e-6), params, grads)

    means = []
    for step in range(16):
        samples = rollout(params, prompts, jax.random.key(step))
        tokens, length = np.asarray(samples.tokens), np.asarray(samples.length)
        said = (tokens == word) & (np.arange(T) < length[..., None])
        rewards = said.mean(-1, dtype=np.float32)
        means.append(float(rewards.mean()))
        params = update(params, samples, rewards)
    assert np.isfinite(means).all()
    assert np.mean(means[-4:]) > np.mean(means[:4]) + 0.2


def test_the_prompt_is_never_repeated(guard, prompts, transform):
    """No array of the lowered program has a prompt, a group and a head's width at once."""
    cfg, fns, params = guard
    group, width, head = 5, prompts.prompt.tokens.shape[1], cfg.text.head_dim
    sampling = SamplingParams(group, 3, cfg.text.eos_token_id, cfg.text.pad_token_id)
    tokens, length = jnp.ones((3, group, 3), jnp.int32), jnp.full((3, group), 3)

    def both(params):
        samples = generate(fns, params, prompts, jax.random.key(0), sampling, transform)
        loss = lambda p: token_logprobs(fns, p, prompts, tokens, length, transform)[0].sum()
        return samples, jax.grad(loss)(params)

    text = jax.jit(both).lower(params).as_text()
    shapes = {
        tuple(int(n) for n in found.split("x"))
        for found in re.findall(r"tensor<((?:\d+x)+\d+)x[a-z]\w*>", text)
    }
    assert any(width in shape and head in shape for shape in shapes)
    for shape in shapes:
        assert not {group, width, head} <= set(shape), shape
        assert not {3 * group, width} <= set(shape), shape
        assert not {group, width, cfg.text.hidden_size} <= set(shape), shape
