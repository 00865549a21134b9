"""Checkpoints: there and back byte for byte, and every way to be broken has a name."""

import dataclasses
import json
import math
import os
import pickle
import subprocess
import sys
import textwrap
import tracemalloc

import flax.traverse_util
import jax
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from guardjax.models import hf_leaves, shards
from guardjax.models.hf_names import tensor_table
from guardjax.models.hf_weights import INDEX_FILE, SINGLE_FILE, WeightsError, load_hf, save_hf
from guardjax.models.init import init_params
from tests.models.reference_cases import TIED, UNTIED


@pytest.fixture(name="params", scope="module")
def make_params():
    return init_params(TIED, jax.random.key(3))


@pytest.fixture(name="folder")
def make_folder(params, tmp_path):
    save_hf(params, TIED, tmp_path / "model")
    return tmp_path / "model"


def read(folder):
    return safetensors.numpy.load_file(folder / SINGLE_FILE)


def write(folder, tensors):
    safetensors.numpy.save_file(tensors, folder / SINGLE_FILE)


def assert_same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("shard_bytes", [2**30, 60_000])
def test_import_export_import_is_byte_equal(params, tmp_path, dtype, shard_bytes):
    save_hf(params, TIED, tmp_path / "a", dtype=dtype, max_shard_bytes=shard_bytes)
    cfg, first = load_hf(tmp_path / "a")
    assert cfg == TIED
    save_hf(first, cfg, tmp_path / "b", dtype=dtype, max_shard_bytes=shard_bytes)
    files = sorted(f.name for f in (tmp_path / "a").iterdir())
    assert (INDEX_FILE in files) == (shard_bytes == 60_000)
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    assert_same(first, load_hf(tmp_path / "b")[1])
    if dtype == "float32":
        assert_same(first, params)


def test_tensors_are_aligned_in_the_file(folder):
    """The format wants it; readers that map the file into memory rely on it."""
    assert int.from_bytes((folder / SINGLE_FILE).read_bytes()[:8], "little") % 8 == 0


def test_a_folder_is_as_readable_as_the_user_wants_it(params, tmp_path):
    before = os.umask(0o027)
    try:
        save_hf(params, TIED, tmp_path / "model")
    finally:
        os.umask(before)
    assert (tmp_path / "model").stat().st_mode & 0o777 == 0o750


def test_untied_head_goes_there_and_back(tmp_path):
    params = init_params(UNTIED, jax.random.key(0))
    save_hf(params, UNTIED, tmp_path / "model")
    assert "lm_head.weight" in read(tmp_path / "model")
    cfg, back = load_hf(tmp_path / "model")
    assert cfg == UNTIED
    assert_same(back, params)


def test_names_and_shapes_are_those_of_the_hub():
    shapes = {spec.name: spec.shape for spec in tensor_table(UNTIED)}
    assert shapes["visual.patch_embed.proj.weight"] == (32, 3, 2, 4, 4)
    assert shapes["visual.blocks.0.attn.qkv.weight"] == (96, 32)
    assert shapes["visual.blocks.2.mlp.down_proj.bias"] == (32,)
    assert shapes["visual.blocks.1.norm2.weight"] == (32,)
    assert shapes["visual.merger.mlp.2.weight"] == (48, 128)
    assert shapes["visual.merger.ln_q.weight"] == (32,)
    assert shapes["model.embed_tokens.weight"] == (96, 48)
    assert shapes["model.layers.2.self_attn.k_proj.weight"] == (16, 48)
    assert shapes["model.layers.0.post_attention_layernorm.weight"] == (48,)
    assert shapes["model.norm.weight"] == (48,)
    assert shapes["lm_head.weight"] == (96, 48)
    assert "model.layers.0.self_attn.o_proj.bias" not in shapes
    assert len(shapes) == 1 + 12 * 3 + 5 + 1 + 12 * 3 + 1 + 1


def test_loads_in_another_type_and_onto_shardings(folder, params):
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    shardings = jax.tree.map(lambda _: device, params)
    _, loaded = load_hf(folder, dtype="bfloat16", shardings=shardings)
    assert_same(loaded, jax.tree.map(lambda x: x.astype(ml_dtypes.bfloat16), params))


def test_one_tensor_at_a_time_is_on_the_host(tmp_path):
    """A model of 20 equal layers; beside what is kept, as JAX's own or as NumPy's memory."""
    cfg = dataclasses.replace(TIED, text=dataclasses.replace(
        TIED.text, num_hidden_layers=20, intermediate_size=2048))
    shape_of = {spec.path: spec.our_shape for spec in tensor_table(cfg)}
    params = flax.traverse_util.unflatten_dict(
        {path: np.zeros(shape, np.float32) for path, shape in shape_of.items()})
    total, largest = (4 * f(math.prod(s) for s in shape_of.values()) for f in (sum, max))
    assert total > 40 * largest

    def peak(action):
        tracemalloc.start()
        try:
            result = action()       # alive while its memory is counted
            kept, most = tracemalloc.get_traced_memory()
            del result
            return most - kept
        finally:
            tracemalloc.stop()

    bound = 3 * largest + 2**21     # and what Python itself needs, for the table above all
    folder = tmp_path / "model"
    assert peak(lambda: save_hf(params, cfg, folder, max_shard_bytes=total // 3)) < bound
    assert peak(lambda: load_hf(folder, cfg)) < bound
    assert bound < total / 3


def test_reading_in_pieces_gives_the_same(folder, params, monkeypatch):
    monkeypatch.setattr(hf_leaves, "_PIECE_BYTES", 1000)
    assert_same(load_hf(folder)[1], params)


def test_everything_is_checked_before_anything_is_read(params, tmp_path, monkeypatch):
    folder = tmp_path / "model"
    save_hf(params, TIED, folder, max_shard_bytes=60_000)
    monkeypatch.setattr(shards.StoredTensor, "read", lambda *_: pytest.fail("was read"))
    last = sorted(folder.glob("*.safetensors"))[-1]
    whole = last.read_bytes()
    last.write_bytes(whole[:-5])
    with pytest.raises(WeightsError, match="not a whole safetensors file"):
        load_hf(folder)
    last.write_bytes(whole)
    with pytest.raises(WeightsError, match="has shape"):
        load_hf(folder, dataclasses.replace(TIED, text=dataclasses.replace(
            TIED.text, vocab_size=2**30)))


def test_each_device_gets_its_part(tmp_path):
    """Eight devices, sharded over both sides of a kernel, the rest replicated."""
    code = """
        import sys, jax, numpy as np
        from jax.sharding import AxisType, NamedSharding, PartitionSpec
        from guardjax.models.hf_weights import load_hf
        mesh = jax.make_mesh((4, 2), ("a", "b"), axis_types=(AxisType.Auto,) * 2)
        cfg, whole = load_hf(sys.argv[1])
        def spec(leaf):
            fits = leaf.ndim == 2 and leaf.shape[0] % 4 == leaf.shape[1] % 2 == 0
            return NamedSharding(mesh, PartitionSpec("a", "b") if fits else PartitionSpec())
        shardings = jax.tree.map(spec, whole)
        _, parts = load_hf(sys.argv[1], shardings=shardings)
        for a, b, s in zip(*map(jax.tree.leaves, (whole, parts, shardings)), strict=True):
            np.testing.assert_array_equal(a, b)
            assert b.sharding == s and len(b.addressable_shards) == 8
        split = [leaf for leaf in jax.tree.leaves(parts) if not leaf.is_fully_replicated]
        print(len(split), split[0].addressable_shards[0].data.size * 8 == split[0].size)
    """
    save_hf(init_params(UNTIED, jax.random.key(0)), UNTIED, tmp_path / "model")
    env = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=8",
                        "JAX_PLATFORMS": "cpu"}
    out = subprocess.run([sys.executable, "-c", textwrap.dedent(code), tmp_path / "model"],
                         env=env, capture_output=True, text=True, check=False)
    assert out.returncode == 0, out.stderr
    num_split, in_eighths = out.stdout.split()
    assert int(num_split) > 20 and in_eighths == "True"


def test_module_names_in_memory_are_read_too(folder, params):
    renamed = {name.replace("model.", "model.language_model.", 1) if name.startswith("model.")
               else f"model.{name}": tensor for name, tensor in read(folder).items()}
    write(folder, renamed)
    assert_same(load_hf(folder)[1], params)


def test_a_tied_head_in_the_file_must_equal_the_embedding(folder, params):
    tensors = read(folder)
    write(folder, {**tensors, "lm_head.weight": tensors["model.embed_tokens.weight"]})
    assert_same(load_hf(folder)[1], params)
    write(folder, {**tensors, "lm_head.weight": tensors["model.embed_tokens.weight"] + 1})
    with pytest.raises(WeightsError, match="ties the head .* lm_head.weight differs"):
        load_hf(folder)


def test_missing_tensor(folder):
    tensors = read(folder)
    del tensors["model.norm.weight"]
    write(folder, tensors)
    with pytest.raises(WeightsError, match="1 tensors are missing: model.norm.weight"):
        load_hf(folder)


def test_unused_tensor(folder):
    write(folder, {**read(folder), "model.layers.9.norm.weight": np.zeros(2, np.float32)})
    with pytest.raises(WeightsError, match="model.layers.9.norm.weight has no place"):
        load_hf(folder)


def test_wrong_shape(folder):
    tensors = read(folder)
    name = "model.layers.0.mlp.up_proj.weight"
    tensors[name] = tensors[name].T.copy()
    write(folder, tensors)
    with pytest.raises(WeightsError, match=r"has shape \(48, 56\), expected \(56, 48\)"):
        load_hf(folder)


def test_wrong_type(folder):
    write(folder, {**read(folder), "model.norm.weight": np.ones(48, np.int32)})
    with pytest.raises(WeightsError, match="model.norm.weight has type I32"):
        load_hf(folder)


@pytest.mark.parametrize("keep", [-5, 100, 3])
def test_truncated_file(folder, keep):
    file = folder / SINGLE_FILE
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(WeightsError, match="model.safetensors is not a whole safetensors file"):
        load_hf(folder)


def test_a_name_that_occurs_twice(folder):
    tensors = read(folder)
    write(folder, {**tensors, "model.language_model.norm.weight": tensors["model.norm.weight"]})
    with pytest.raises(WeightsError, match="model.norm.weight occurs twice"):
        load_hf(folder)


@pytest.mark.parametrize("call", [
    lambda folder, params: load_hf(folder, dtype="float64"),
    lambda folder, params: save_hf(params, TIED, folder / "new", dtype="int8")])
def test_another_type_is_refused(folder, params, call):
    with pytest.raises(ValueError, match="dtype is '.*'; it must be one of float32, float16"):
        call(folder, params)


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
@pytest.mark.parametrize("name", [
    "model.norm.weight", "model.layers.0.mlp.up_proj.weight", "visual.patch_embed.proj.weight"])
def test_float16_does_not_make_infinities(folder, tmp_path, dtype, name):
    tensors = {key: value.astype(dtype) for key, value in read(folder).items()}
    tensors[name].reshape(-1)[-1] = -70_000
    write(folder, tensors)
    message = f"tensor {name} has numbers that float16 cannot hold .its largest is 65,504"
    with pytest.raises(WeightsError, match=message):
        load_hf(folder, dtype="float16")
    _, params = load_hf(folder, dtype=np.dtype(dtype).name)
    with pytest.raises(WeightsError, match=message):
        save_hf(params, TIED, tmp_path / "half", dtype="float16")
    assert not (tmp_path / "half").exists()


def test_a_pickle_behind_the_index(params, tmp_path):
    folder = tmp_path / "model"
    save_hf(params, TIED, folder, max_shard_bytes=60_000)
    index = json.loads((folder / INDEX_FILE).read_text(encoding="utf-8"))
    file = next(iter(index["weight_map"].values()))
    (folder / file).rename(folder / "part.bin")
    index["weight_map"] = {name: "part.bin" if where == file else where
                           for name, where in index["weight_map"].items()}
    (folder / INDEX_FILE).write_text(json.dumps(index), encoding="utf-8")
    with pytest.raises(WeightsError, match="shard part.bin is no safetensors file"):
        load_hf(folder)


def test_pickled_weights(folder):
    (folder / SINGLE_FILE).unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({}))
    with pytest.raises(WeightsError, match=r"only pickled weights \(pytorch_model.bin\)"):
        load_hf(folder)


def test_no_weights_no_config_no_folder(folder, tmp_path):
    (folder / SINGLE_FILE).unlink()
    with pytest.raises(FileNotFoundError, match="neither model.safetensors nor"):
        load_hf(folder)
    with pytest.raises(FileNotFoundError, match="has no config.json"):
        load_hf(tmp_path)
    with pytest.raises(FileNotFoundError, match="not a directory"):
        load_hf(tmp_path / "nowhere", TIED)


def test_broken_config(folder):
    (folder / "config.json").write_text("{", encoding="utf-8")
    with pytest.raises(WeightsError, match="config.json is not JSON"):
        load_hf(folder)


def test_broken_shards(params, tmp_path):
    folder = tmp_path / "model"
    save_hf(params, TIED, folder, max_shard_bytes=60_000)
    index = json.loads((folder / INDEX_FILE).read_text(encoding="utf-8"))
    name, file = next(iter(index["weight_map"].items()))

    def put(weight_map):
        (folder / INDEX_FILE).write_text(json.dumps({"weight_map": weight_map}), encoding="utf-8")

    put({**index["weight_map"], "model.extra.weight": file})
    with pytest.raises(WeightsError, match=f"{file} does not hold what .*model.extra.weight"):
        load_hf(folder)
    put({**index["weight_map"], name: "../elsewhere.safetensors"})
    with pytest.raises(WeightsError, match="points outside the directory"):
        load_hf(folder)
    put({})
    with pytest.raises(WeightsError, match="no weight_map"):
        load_hf(folder)
    put(index["weight_map"])
    (folder / file).unlink()
    with pytest.raises(WeightsError, match=f"shard {file} is missing"):
        load_hf(folder)


def test_saving_touches_nothing_that_is_there(folder, params, tmp_path):
    before = (folder / SINGLE_FILE).read_bytes()
    with pytest.raises(FileExistsError, match="not an empty directory"):
        save_hf(params, TIED, folder)
    assert (folder / SINGLE_FILE).read_bytes() == before


def test_a_saved_model_is_for_everybody(folder):
    assert all(file.stat().st_mode & 0o044 == 0o044 for file in (folder, *folder.iterdir()))


def test_a_failed_save_leaves_nothing_behind(params, tmp_path, monkeypatch):
    def full_disk(*_, **__):
        raise OSError(28, "No space left on device")
    monkeypatch.setattr(shards.os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        save_hf(params, TIED, tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_saving_another_models_parameters_is_refused(params, tmp_path):
    with pytest.raises(WeightsError, match="do not fit the config"):
        save_hf(params, UNTIED, tmp_path / "model")
    broken = {**params, "model": {**params["model"], "norm": {"scale": np.ones(3, np.float32)}}}
    with pytest.raises(WeightsError, match=r"model/norm/scale has shape \(3,\), expected \(48,\)"):
        save_hf(broken, TIED, tmp_path / "model")
