"""A base that is put in four bits as it is read: what is made of it, and how much is there at once.
"""

import dataclasses

import jax
import numpy as np
import pytest
from jax.sharding import SingleDeviceSharding

from guardjax.models import hf_leaves
from guardjax.models.config import ModelConfig, TextConfig, VisionConfig
from guardjax.models.hf_weights import load_hf, save_hf
from guardjax.models.init import init_params
from guardjax.models.linear import KERNEL, NF4, ordinary_shapes
from guardjax.train.config import LoraConfig
from guardjax.train.lora import target_kernels
from guardjax.train.recipe import four_bit_modules, make_recipe

pytest.importorskip("qwix", reason="four bits need qwix (extra `qlora`)")

# Of the decoder's kernels those of 96 inputs are no whole number of blocks.
CFG = ModelConfig(
    VisionConfig(depth=2, hidden_size=32, intermediate_size=48, num_heads=2, out_hidden_size=64,
                 patch_size=4, window_size=16, fullatt_block_indexes=(1,)),
    TextConfig(vocab_size=96, hidden_size=64, intermediate_size=96, num_hidden_layers=8,
               num_attention_heads=2, num_key_value_heads=1, mrope_section=(4, 6, 6)))
SCANNED = dataclasses.replace(CFG, scan_layers=True)
QLORA = LoraConfig(rank=2, base="nf4")
CHOSEN = four_bit_modules(QLORA)


@pytest.fixture(name="folder", scope="module")
def make_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "model"
    save_hf(init_params(CFG, jax.random.key(0)), CFG, folder)
    return folder


def is_four_bits(leaf):
    return hasattr(leaf, "qvalue")


@pytest.mark.parametrize("cfg", [CFG, SCANNED], ids=["unrolled", "scanned"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_it_is_what_is_made_of_the_whole_model(folder, cfg, dtype):
    from guardjax.models.nf4 import quantise

    _, read = load_hf(folder, cfg, dtype=dtype, four_bits=CHOSEN)
    _, whole = load_hf(folder, cfg, dtype=dtype)
    expected = quantise(whole, CHOSEN)
    assert jax.tree.structure(read) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, read, expected)
    layer = read["model"]["layers" if cfg.scan_layers else "layers_3"]
    assert NF4 in layer["mlp"]["up_proj"] and KERNEL in layer["mlp"]["down_proj"]
    assert not any(map(is_four_bits, jax.tree.leaves(read["visual"], is_leaf=is_four_bits)))


@pytest.mark.parametrize("cfg", [CFG, SCANNED], ids=["unrolled", "scanned"])
def test_beside_what_is_kept_there_is_one_tensor_at_a_time(folder, cfg, monkeypatch):
    """Bytes on the device when a tensor comes, and of the tensor itself."""
    read, seen = hf_leaves._part, []
    before = {id(array) for array in jax.live_arrays()}

    def watched(*args):
        live = sum(array.nbytes for array in jax.live_arrays() if id(array) not in before)
        part = read(*args)
        seen.append((live, part.nbytes))
        return part

    monkeypatch.setattr(hf_leaves, "_part", watched)
    _, params = load_hf(folder, cfg, four_bits=CHOSEN)
    kept = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    largest = 4 * 64 * 96           # a kernel, float32; the stack of all is eight times that
    assert cfg.text.num_hidden_layers * largest > kept / 4
    quantised = [live + size for live, size in seen if size == largest]
    assert len(quantised) >= 2 * cfg.text.num_hidden_layers
    assert max(live + size for live, size in seen) <= kept + largest


def test_it_trains_as_one_that_is_quantised_later(folder):
    params = init_params(CFG, jax.random.key(0))
    _, read = load_hf(folder, four_bits=CHOSEN)
    recipe = make_recipe(("visual",), QLORA)
    now, later = (recipe.split(tree, jax.random.key(1)) for tree in (read, params))
    assert jax.tree.structure(now) == jax.tree.structure(later)
    jax.tree.map(np.testing.assert_array_equal, now, later)
    assert target_kernels(read, QLORA).keys() == target_kernels(params, QLORA).keys()


def test_the_ordinary_tree_of_one_in_four_bits(folder):
    shapes = ordinary_shapes(load_hf(folder, SCANNED, four_bits=CHOSEN)[1])
    _, whole = load_hf(folder, SCANNED)
    assert jax.tree.map(lambda x: (x.shape, x.dtype, x.sharding), shapes) == jax.tree.map(
        lambda x: (x.shape, x.dtype, x.sharding), whole)


def test_four_bits_are_for_one_device(folder):
    places = jax.tree.map(lambda _: SingleDeviceSharding(jax.devices()[0]), load_hf(folder)[1])
    with pytest.raises(ValueError, match="four_bits and shardings cannot be combined"):
        load_hf(folder, shardings=places, four_bits=CHOSEN)
