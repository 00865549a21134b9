"""Matrices that stay [out, in] for a CPU: the same numbers, read from the files as they lie."""

import dataclasses

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import SingleDeviceSharding

from guardjax import models
from guardjax.cli.assets import model_dir
from guardjax.eval.guard import Guard
from guardjax.models import turned
from guardjax.models.linear import KERNEL, Linear
from guardjax.models.shards import open_checkpoint
from guardjax.rl.logprobs import next_token_logits
from guardjax.rl.model_fns import bind
from guardjax.types import PolicyExample, PromptBatch
from tests.models.reference_cases import SMALLEST, UNTIED, make_inputs, make_row

KERNEL_T = turned.KERNEL_T
pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture
def all_turned(monkeypatch):
    """As if every matrix were large."""
    monkeypatch.setattr(turned, "_LARGE", 0)


@pytest.mark.parametrize("shape", [(24,), (1, 24), (3, 5, 24), (128, 24), (129, 24)])
def test_the_product_is_that_of_the_matrix(shape):
    rng = np.random.default_rng(0)
    x, kernel = rng.standard_normal(shape), rng.standard_normal((24, 10))
    found = jax.jit(turned.product_turned)(x.astype(np.float32), kernel.T.astype(np.float32))
    assert found.shape == (*shape[:-1], 10)
    np.testing.assert_allclose(found, x @ kernel, rtol=1e-5, atol=1e-5)


def test_sums_may_be_wider_than_the_factors():
    x, kernel = jnp.ones((2, 300), jnp.bfloat16), jnp.full((7, 300), 1.01, jnp.float32)
    found = turned.product_turned(x, kernel, jnp.float32)
    assert found.dtype == jnp.float32 and turned.product_turned(x, kernel).dtype == jnp.bfloat16
    np.testing.assert_allclose(found, 300 * np.float32(jnp.bfloat16(1.01)), rtol=1e-6)


def test_a_layer_takes_either_with_its_bias_and_adapter():
    rng, layer = np.random.default_rng(0), Linear(6, True, "float32")
    draw = lambda *shape: rng.standard_normal(shape).astype(np.float32)
    kernel, rest = draw(8, 6), {"bias": draw(6), "lora_a": draw(8, 2), "lora_b": draw(2, 6)}
    x = draw(3, 8)
    plain, other = (layer.apply({"params": {name: matrix, **rest}}, x)
                    for name, matrix in ((KERNEL, kernel), (KERNEL_T, kernel.T)))
    np.testing.assert_allclose(plain, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("cfg", [
    SMALLEST, UNTIED,
    pytest.param(dataclasses.replace(SMALLEST, scan_layers=True), marks=pytest.mark.slow)],
    ids=["tied", "untied", "scanned"])
def test_a_model_that_is_read_turned_gives_the_same_logits(tmp_path, cfg, all_turned):
    models.save_hf(models.init_params(cfg, jax.random.key(0)), cfg, tmp_path / "model")
    _, params = models.load_hf(tmp_path / "model", cfg)
    _, read = models.load_hf(tmp_path / "model", cfg, turned=True)
    segment, vision = make_inputs(cfg, [make_row(cfg, "odd_grid")])
    prompts = PromptBatch(segment, np.zeros(1, np.int32), vision)
    logits = jax.jit(lambda params: next_token_logits(bind(models, cfg), params, prompts))
    np.testing.assert_allclose(logits(read), logits(params), rtol=1e-5, atol=1e-5)
    plain, other = models.head(params, cfg), models.head(read, cfg)
    as_rows = lambda head: np.moveaxis(np.asarray(head.weight), head.vocab_axis, 0)
    np.testing.assert_array_equal(as_rows(other), as_rows(plain))


def test_what_is_read_lies_as_in_the_file(tmp_path, all_turned):
    models.save_hf(models.init_params(UNTIED, jax.random.key(0)), UNTIED, tmp_path / "model")
    _, read = models.load_hf(tmp_path / "model", turned=True)
    flat = flax.traverse_util.flatten_dict(read)
    assert [path for path in flat if path[-1] == KERNEL] == [("visual", "patch_embed", KERNEL)]
    with open_checkpoint(tmp_path / "model") as tensors:
        stored = {tensor.name: tensor.read() for tensor in tensors}
    np.testing.assert_array_equal(flat["lm_head", KERNEL_T], stored["lm_head.weight"])
    up = flat["model", "layers_1", "mlp", "up_proj", KERNEL_T]
    np.testing.assert_array_equal(up, stored["model.layers.1.mlp.up_proj.weight"])


def test_a_tied_head_is_the_embedding_and_no_copy(tmp_path, all_turned):
    models.save_hf(models.init_params(SMALLEST, jax.random.key(0)), SMALLEST, tmp_path / "model")
    _, read = models.load_hf(tmp_path / "model", turned=True)
    assert read["lm_head"][KERNEL_T] is read["model"]["embed_tokens"]["embedding"]


def test_small_matrices_are_read_as_ever():
    guard, (_, params) = model_dir("guard"), models.load_hf(model_dir("guard"))
    _, read = models.load_hf(guard, turned=True)
    assert jax.tree.structure(read) == jax.tree.structure(params)
    assert max(leaf.nbytes for leaf in jax.tree.leaves(params)) < turned._LARGE


@pytest.mark.parametrize("backend, dtype, helps", [
    ("cpu", "float32", True), ("cpu", "bfloat16", False), ("gpu", "float32", False)])
def test_turned_where_it_helps(monkeypatch, backend, dtype, helps):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    assert turned.helps(dtype) is helps


def test_a_guard_reads_large_matrices_turned_and_answers_the_same(monkeypatch):
    asked = [PolicyExample(f"e{i}", "judge", "Is it safe?", f"R{i}: no knife.",
                           np.random.default_rng(i).integers(0, 256, (64, 64, 3), np.uint8))
             for i in range(3)]
    plain = Guard.load(model_dir("guard"), 4)
    monkeypatch.setattr(turned, "_LARGE", 0)
    guard = Guard.load(model_dir("guard"), 4)
    assert KERNEL_T in {path[-1] for path in flax.traverse_util.flatten_dict(guard.params)}
    assert guard.answer_examples(asked) == plain.answer_examples(asked)


def test_turned_matrices_are_for_one_device():
    places = SingleDeviceSharding(jax.devices()[0])
    with pytest.raises(ValueError, match="turned and shardings cannot be combined"):
        models.load_hf(model_dir("guard"), turned=True, shardings={"model": places})
