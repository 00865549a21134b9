"""Matrices rounded once give what matrices rounded at every use give, bit by bit."""

import dataclasses

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from guardjax import models
from guardjax.cli.assets import model_dir
from guardjax.data.batching import load_batcher, save_batcher
from guardjax.eval.guard import Guard
from guardjax.models.hf_weights import save_hf
from guardjax.models.linear import rounded
from guardjax.rl.model_fns import bind
from guardjax.types import PolicyExample
from tests.models.reference_cases import SMALLEST, UNTIED, make_inputs, make_row

pytestmark = pytest.mark.usefixtures("quick_compilation")


def noisy(cfg, seed=0):
    """Every leaf with numbers that bfloat16 does not hold, biases and scales too."""
    leaves, tree = jax.tree.flatten(models.init_params(cfg, jax.random.key(seed)))
    keys = jax.random.split(jax.random.key(seed + 1), len(leaves))
    return tree.unflatten([leaf + 0.02 * jax.random.normal(key, leaf.shape)
                           for leaf, key in zip(leaves, keys, strict=True)])


@pytest.mark.slow
@pytest.mark.parametrize("cfg", [SMALLEST, UNTIED], ids=["tied", "untied"])
def test_logits_are_the_same_bit_by_bit(cfg):
    cfg = dataclasses.replace(cfg, dtype="bfloat16")
    params, (segment, vision) = noisy(cfg), make_inputs(cfg, [make_row(cfg, "odd_grid")])

    @jax.jit
    def logits(params):
        features = models.encode_images(params, cfg, vision)
        (hidden,), _ = models.forward(params, cfg, [segment], features)
        return models.unembed(params, cfg, hidden)

    once = models.round_once(params, cfg)
    np.testing.assert_array_equal(logits(once), logits(params))
    types = {path[-1]: leaf.dtype for path, leaf in flax.traverse_util.flatten_dict(once).items()}
    assert types["kernel"] == types["embedding"] == jnp.bfloat16
    assert types["scale"] == types["bias"] == jnp.float32


def test_nothing_is_widened_and_adapters_are_rounded_too():
    half, whole = jnp.ones((2, 2), jnp.bfloat16), jnp.ones((2, 2), jnp.float32)
    leaves = {"kernel": half, "lora_a": whole, "lora_b": whole, "bias": whole}
    assert {name: str(leaf.dtype) for name, leaf in rounded(leaves, "bfloat16").items()} == {
        "kernel": "bfloat16", "lora_a": "bfloat16", "lora_b": "bfloat16", "bias": "float32"}
    assert rounded(leaves, "float32")["kernel"].dtype == jnp.bfloat16


def test_a_guard_keeps_what_it_computes_with(tmp_path):
    """A folder in bfloat16 takes two bytes a number, and is judged as by what was rounded late."""
    cfg, params = models.load_hf(model_dir("guard"))
    cfg = dataclasses.replace(cfg, dtype="bfloat16")
    save_hf(params, cfg, tmp_path / "half", dtype="bfloat16")
    save_batcher(load_batcher(model_dir("guard")), tmp_path / "half")
    guard = Guard.load(tmp_path / "half", 4, dtype="bfloat16")
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(guard.params)} == {"bfloat16"}
    _, wide = models.load_hf(tmp_path / "half")
    late = dataclasses.replace(guard, fns=bind(models, cfg), params=wide)
    asked = [PolicyExample(f"e{i}", "judge", "Is it safe?", f"R{i}: no knife.",
                           np.random.default_rng(i).integers(0, 256, (64, 64, 3), np.uint8))
             for i in range(4)]
    assert guard.answer_examples(asked) == late.answer_examples(asked)
