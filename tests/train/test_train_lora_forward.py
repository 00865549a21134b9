"""Factors beside their kernels: the model says what it says with them added, and costs less."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from guardjax.models import qwen2_5_vl as model
from guardjax.models.config import ModelConfig, TextConfig, VisionConfig
from guardjax.models.init import init_params, param_shapes
from guardjax.models.linear import NF4
from guardjax.train import recipe as recipes
from guardjax.train.config import LoraConfig
from guardjax.train.lora import apply_adapters, attach_adapters, init_adapters, target_kernels
from guardjax.train.recipe import make_recipe
from guardjax.types import Segment, VisionInputs

VISION = VisionConfig(depth=2, hidden_size=64, intermediate_size=80, num_heads=2,
                      out_hidden_size=64, patch_size=4, window_size=16,
                      fullatt_block_indexes=(1,))
TEXT = TextConfig(vocab_size=96, hidden_size=64, intermediate_size=128, num_hidden_layers=2,
                  num_attention_heads=2, num_key_value_heads=1, mrope_section=(4, 6, 6),
                  initializer_range=0.2)
UNROLLED = ModelConfig(VISION, TEXT)
SCANNED = ModelConfig(VISION, TEXT, scan_layers=True)
LORA = LoraConfig(rank=2, alpha=3.0, targets=("model/.*_proj", "visual/.*/(qkv|proj)", "lm_head"))
QLORA = dataclasses.replace(LORA, base="nf4")


@pytest.fixture(scope="module", autouse=True)
def _quick(quick_compilation):
    """All programs here are small."""


def drawn(cfg, seed=3):
    """(parameters, factors of which no B is zero)."""
    params = init_params(cfg, jax.random.key(0))
    rng = np.random.default_rng(seed)
    return params, jax.tree.map(lambda x: jnp.asarray(0.2 * rng.normal(size=x.shape), jnp.float32),
                                init_adapters(params, LORA, jax.random.key(1)))


def inputs():
    rng = np.random.default_rng(0)
    num, tokens = VISION.window_patches, rng.integers(0, 96, (2, 6))
    vision = VisionInputs(rng.normal(size=(2, num, VISION.patch_dim)).astype(np.float32),
                          rng.integers(0, 4, (2, num, 2)), np.zeros((2, num), np.int32))
    index = np.where(np.arange(6) < 3, np.arange(6), -1)[None].repeat(2, 0)
    positions = np.arange(6)[None, :, None].repeat(2, 0).repeat(3, -1)
    return Segment(tokens, positions, tokens >= 0, index), vision


def loss(cfg, params):
    segment, vision = inputs()
    (hidden,), _ = model.forward(params, cfg, [segment], model.encode_images(params, cfg, vision))
    logits = model.unembed(params, cfg, hidden)
    return jnp.square(jax.nn.log_softmax(logits)).mean(), logits


@functools.partial(jax.jit, static_argnums=(0, 1))
def slope(cfg, put, adapters, params):
    """((loss, logits), gradient of the factors)."""
    return jax.value_and_grad(lambda a: loss(cfg, put(params, a, LORA)), has_aux=True)(adapters)


@functools.partial(jax.jit, static_argnums=(0, 1))
def logits(cfg, put, adapters, params):
    return loss(cfg, put(params, adapters, LORA))[1]


def close(one, other, tolerance):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(
        a, b, atol=tolerance * float(jnp.abs(b).max())), one, other)


@pytest.mark.slow
def test_beside_the_kernels_they_do_what_they_do_inside():
    params, adapters = drawn(SCANNED)
    (_, beside), found = slope(SCANNED, attach_adapters, adapters, params)
    (_, inside), expected = slope(SCANNED, apply_adapters, adapters, params)
    close(beside, inside, 1e-4)
    close(found, expected, 1e-4)
    assert jax.tree.structure(found) == jax.tree.structure(adapters)
    assert {x.dtype for x in jax.tree.leaves(found)} == {np.dtype(np.float32)}
    (_, plain), _ = slope(SCANNED, attach_adapters, jax.tree.map(jnp.zeros_like, adapters), params)
    assert float(jnp.abs(beside - plain).max()) > 0.1 * float(jnp.abs(plain).max())


def test_unrolled_too():
    params, adapters = drawn(UNROLLED)
    close(logits(UNROLLED, attach_adapters, adapters, params),
          logits(UNROLLED, attach_adapters, {}, apply_adapters(params, adapters, LORA)), 1e-4)


def test_under_the_scan_factors_are_stacked_and_targets_are_the_same_modules():
    stacked = target_kernels(param_shapes(SCANNED), LORA)
    layers = {path: kernel.shape[:-2] for path, kernel in stacked.items()}
    assert layers["model/layers/self_attn/q_proj"] == (2,)
    assert layers["visual/blocks/window/attn/qkv"] == (1, 1)
    assert layers["visual/blocks/full/attn/qkv"] == (1,) and layers["lm_head"] == ()
    unrolled = target_kernels(param_shapes(UNROLLED), LORA)
    assert sum(int(np.prod(shape)) for shape in layers.values()) == len(unrolled)
    recipe = make_recipe(("visual",), dataclasses.replace(LORA, targets=(".*_proj",)))
    assert set(jax.eval_shape(lambda p: recipe.split(p, jax.random.key(0))[0],
                              param_shapes(SCANNED))) == {"model"}


def test_no_kernel_and_no_gradient_of_its_size_is_made():
    """In the shape of a kernel there is nothing but the kernels that came in."""
    def products(put):
        params, adapters = jax.eval_shape(lambda: drawn_shapes(UNROLLED))
        text = str(jax.make_jaxpr(functools.partial(slope, UNROLLED, put))(adapters, params))
        return len(re.findall(r"f32\[64,128\] = dot_general", text))

    assert products(attach_adapters) == 0
    assert products(apply_adapters) >= 2 * TEXT.num_hidden_layers


def drawn_shapes(cfg):
    params = jax.tree.map(lambda x: jnp.zeros(x.shape), param_shapes(cfg))
    return params, init_adapters(params, LORA, jax.random.key(1))


@pytest.mark.slow
def test_half_precision_rounds_as_the_layers_do():
    cfg = dataclasses.replace(SCANNED, dtype="bfloat16")
    params, adapters = drawn(cfg)
    narrow = jax.tree.map(lambda x: x.astype(jnp.bfloat16), params)
    beside = logits(cfg, attach_adapters, adapters, narrow)
    inside = logits(cfg, attach_adapters, {}, apply_adapters(narrow, adapters, LORA))
    (_, exact), _ = slope(SCANNED, attach_adapters, adapters, params)
    gap = float(jnp.abs(inside - exact).max())
    assert float(jnp.abs(beside - inside).max()) < 2 * gap


class TestFourBits:
    """A frozen base in NF4."""

    @pytest.fixture(autouse=True)
    def _qwix(self):
        pytest.importorskip("qwix", reason="four bits need qwix (extra `qlora`)")

    def test_levels_and_scales_are_the_papers(self):
        from guardjax.models import nf4

        rng = np.random.default_rng(0)
        kernel = rng.normal(size=(2, 128, 5)).astype(np.float32)
        (found,) = nf4.quantise({"m": {"kernel": kernel}}, lambda path: path == "m")["m"].values()
        assert str(found.qvalue.dtype) == "uint4" and found.scale.shape == (2, 2, 5)
        levels = np.asarray(_LEVELS, np.float32)        # QLoRA, appendix E
        blocks = kernel.reshape(2, 2, 64, 5)
        scale = np.abs(blocks).max(2, keepdims=True)
        nearest = np.abs(blocks[..., None] / scale[..., None] - levels).argmin(-1)
        expected = (levels[nearest] * scale).reshape(kernel.shape)
        np.testing.assert_allclose(nf4.dequantise(found), expected, atol=1e-6)

    def test_the_model_is_that_of_the_dequantised_weights(self):
        from guardjax.models import nf4

        cfg = SCANNED
        params, adapters = drawn(cfg)
        recipe = make_recipe((), QLORA)
        recipe.check(param_shapes(cfg))
        _, frozen = recipe.split(params, jax.random.key(0))
        names = {path[-1].key for path, _ in jax.tree_util.tree_leaves_with_path(
            frozen["model"], is_leaf=lambda x: hasattr(x, "qvalue"))}
        assert NF4 in names and "kernel" not in names
        assert jax.tree.structure(frozen["visual"]) == jax.tree.structure(params["visual"])
        whole = nf4.dequantised(frozen)
        assert jax.tree.structure(whole) == jax.tree.structure(params)
        (_, found), gradient = slope(cfg, attach_adapters, adapters, frozen)
        (_, expected), slopes = slope(cfg, attach_adapters, adapters, whole)
        close(found, expected, 1e-5)
        close(gradient, slopes, 1e-4)
        made = recipe.whole(adapters, frozen)
        jax.tree.map(np.testing.assert_array_equal, made, apply_adapters(whole, adapters, LORA))
        bits = [sum(leaf.size * (4 if leaf.dtype == jnp.uint4 else 32)
                    for leaf in jax.tree.leaves(tree["model"]["layers"]))
                for tree in (frozen, params)]
        assert bits[0] < 0.16 * bits[1]     # 4.5 of 32, and biases and norms

    def test_kernels_of_another_width_stay(self):
        from guardjax.models import nf4

        tree = {"m": {"kernel": jnp.ones((100, 8)), "bias": jnp.ones(8)}}
        same = nf4.quantise(tree, lambda path: True)
        unrolled = jax.eval_shape(lambda p: make_recipe((), QLORA).split(p, jax.random.key(0))[1],
                                  param_shapes(UNROLLED))["model"]
        assert NF4 in unrolled["layers_1"]["mlp"]["up_proj"]
        assert same["m"]["kernel"] is tree["m"]["kernel"] and set(same["m"]) == {"kernel", "bias"}


def test_without_qwix_it_is_said_before_anything_runs(monkeypatch):
    monkeypatch.setattr(recipes.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"needs qwix: install guardjax\[qlora\]"):
        make_recipe((), QLORA).check(param_shapes(UNROLLED))


_LEVELS = (-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453,
           -0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0,
           0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
           0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0)
