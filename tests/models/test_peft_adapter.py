"""Adapters of PEFT: read as it writes them, merged as it merges them."""

import json

import jax
import numpy as np
import pytest
import safetensors.numpy

from guardjax.models.hf_names import tensor_table
from guardjax.models.peft_adapter import ADAPTER_CONFIG, ADAPTER_FILE, load_peft
from guardjax.models.shards import WeightsError
from guardjax.train.config import LoraConfig
from guardjax.train.lora import apply_adapters
from tests.models.reference_cases import TIED, UNTIED, make_row
from tests.models.test_parity import TOLERANCE, batch_logits, relative_error, seeded_params

CONFIG = {"peft_type": "LORA", "r": 3, "lora_alpha": 6, "bias": "none", "use_dora": False,
          "use_rslora": False, "fan_in_fan_out": False, "modules_to_save": None,
          "rank_pattern": {}, "alpha_pattern": {}, "target_modules": ["q_proj", "qkv"],
          "base_model_name_or_path": "Qwen/Some-Base"}
# Module in memory, which PEFT writes, -> ours.
MODULES = {
    "model.language_model.layers.1.self_attn.q_proj": ("model", "layers_1", "self_attn", "q_proj"),
    "model.visual.blocks.0.attn.qkv": ("visual", "blocks_0", "attn", "qkv")}


def factors():
    """PEFT's name -> array."""
    rng = np.random.default_rng(2)
    shapes = {spec.path: spec.shape for spec in tensor_table(TIED)}
    tensors = {}
    for module, path in MODULES.items():
        height, width = shapes[(*path, "kernel")]
        for side, shape in (("A", (3, width)), ("B", (height, 3))):
            tensors[f"base_model.model.{module}.lora_{side}.weight"] = rng.standard_normal(
                shape).astype(np.float32)
    return tensors


def write(folder, config=CONFIG, tensors=None):
    (folder / ADAPTER_CONFIG).write_text(json.dumps(config))
    safetensors.numpy.save_file(factors() if tensors is None else tensors, folder / ADAPTER_FILE)
    return folder


def leaf(tree, path):
    for key in path:
        tree = tree[key]
    return tree


@pytest.mark.parametrize(("changes", "scale"), [({}, 6 / 3), ({"use_rslora": True}, 6 / 3**0.5)])
def test_the_change_of_a_kernel_is_that_of_the_paper(tmp_path, changes, scale):
    adapter = load_peft(write(tmp_path, CONFIG | changes), TIED)
    assert (adapter.rank, adapter.num_modules, adapter.base) == (3, 2, "Qwen/Some-Base")
    params = seeded_params(TIED)
    merged = apply_adapters(params, adapter.tree, LoraConfig(adapter.rank, adapter.alpha))
    tensors = factors()
    for module, path in MODULES.items():
        a, b = (tensors[f"base_model.model.{module}.lora_{side}.weight"] for side in "AB")
        change = leaf(merged, path)["kernel"] - leaf(params, path)["kernel"]
        np.testing.assert_allclose(change, scale * (b @ a).T, rtol=0, atol=1e-5)
    same = jax.tree.map(lambda x, y: x is y, params, merged)
    assert len([s for s in jax.tree.leaves(same) if not s]) == 2


def test_hub_names_and_half_precision_are_read_too(tmp_path):
    tensors = {name.replace("model.language_model.", "model.").replace("model.visual.", "visual."):
               value.astype(np.float16) for name, value in factors().items()}
    adapter = load_peft(write(tmp_path, tensors=tensors), TIED)
    assert {x.dtype for x in jax.tree.leaves(adapter.tree)} == {np.dtype(np.float32)}
    assert adapter.num_modules == 2


A_NAME = "base_model.model.model.visual.blocks.0.attn.qkv.lora_A.weight"


@pytest.mark.parametrize(("changes", "message"), [
    ({"peft_type": "IA3"}, "peft_type is 'IA3'; only 'LORA'"),
    ({"use_dora": True}, "use_dora is True, which is not supported; merge it with PEFT"),
    ({"bias": "all"}, "bias is 'all'"), ({"rank_pattern": {"q_proj": 2}}, "rank_pattern"),
    ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
    ({"r": 0}, "r is 0 and lora_alpha 6"), ({"r": "3"}, "r is '3'"),
    ({"lora_alpha": None}, "lora_alpha None"), ({"lora_alpha": float("nan")}, "lora_alpha nan"),
    ({"alora_invocation_tokens": [7]}, "alora_invocation_tokens is .7."),
    ({"init_lora_weights": "pissa_niter_4"}, "which changes the base's own weights"),
    ({"r": 4}, r"has shape \(3, .*rank 4 on a kernel")])
def test_settings_that_mean_something_else_are_refused(tmp_path, changes, message):
    with pytest.raises(WeightsError, match=message):
        load_peft(write(tmp_path, CONFIG | changes), TIED)


@pytest.mark.parametrize(("name", "value", "message"), [
    (A_NAME, None, "only one factor of visual/blocks_0/attn/qkv/lora_b"),
    (A_NAME, np.zeros((3, 5), np.float32), r"has shape \(3, 5\), expected \(3, 32\)"),
    (A_NAME.replace("blocks.0", "blocks.7"), np.zeros((3, 32), np.float32), "another model"),
    ("base_model.model.model.visual.patch_embed.proj.lora_A.weight", np.zeros((3, 96), np.float32),
     "no factor of a kernel"),
    ("base_model.model.lm_head.base_layer.weight", np.zeros((96, 48), np.float32),
     "save the adapter with save_embedding_layers=False"),
    ("base_model.model.model.norm.weight", np.zeros(48, np.float32), "no factor of a kernel")])
def test_factors_of_another_model_are_refused(tmp_path, name, value, message):
    tensors = {key: v for key, v in (factors() | {name: value}).items() if v is not None}
    with pytest.raises(WeightsError, match=message):
        load_peft(write(tmp_path, tensors=tensors), TIED)


def test_missing_pickled_and_broken_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="has no adapter_config.json"):
        load_peft(tmp_path, TIED)
    file = write(tmp_path) / ADAPTER_FILE
    file.write_bytes(file.read_bytes()[:-3])
    with pytest.raises(WeightsError, match="not a whole safetensors file"):
        load_peft(tmp_path, TIED)
    file.unlink()
    with pytest.raises(FileNotFoundError, match="has no adapter_model.safetensors"):
        load_peft(tmp_path, TIED)
    (tmp_path / "adapter_model.bin").touch()
    with pytest.raises(WeightsError, match="only pickled weights"):
        load_peft(tmp_path, TIED)


@pytest.mark.parametrize("use_rslora", [False, True])
def test_peft_merges_alike(tmp_path, use_rslora, live):
    peft = pytest.importorskip("peft", reason="adapters are compared with peft (extra `parity`)")
    import torch

    from tests.models import reference_model

    model = peft.get_peft_model(reference_model.build(UNTIED), peft.LoraConfig(
        r=2, lora_alpha=5, use_rslora=use_rslora,
        target_modules=["q_proj", "down_proj", "qkv", "lm_head"]))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    model.save_pretrained(tmp_path, save_embedding_layers=False)
    adapter = load_peft(tmp_path, UNTIED)
    assert adapter.num_modules == 3 * 2 + 3 * 2 + 1     # `down_proj` is in both towers
    merged = apply_adapters(seeded_params(UNTIED), adapter.tree,
                            LoraConfig(adapter.rank, adapter.alpha))
    row = make_row(UNTIED, "two_images")
    reference, _ = reference_model.run(model.merge_and_unload(), row)
    plain, _ = reference_model.run(reference_model.build(UNTIED), row)
    assert relative_error(reference, plain) > 0.1
    assert relative_error(batch_logits(merged, UNTIED, [row])[0][0], reference) <= TOLERANCE
