"""Adapters that we save: PEFT reads them, and so do we, in either layout of the layers."""

import dataclasses
import json
import pathlib
import warnings

import flax.traverse_util
import jax
import numpy as np
import pytest
import safetensors.numpy

from guardjax.models.peft_adapter import ADAPTER_CONFIG, ADAPTER_FILE, load_peft
from guardjax.models.peft_save import adapted, save_peft
from guardjax.models.shards import WeightsError
from guardjax.train.lora import apply_adapters, attach_adapters
from tests.models.adapter_cases import LORA, seeded_adapter
from tests.models.reference_cases import UNTIED, make_row
from tests.models.test_parity import TOLERANCE, batch_logits, relative_error, seeded_params

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "models" / "adapter.npz"
SCANNED = dataclasses.replace(UNTIED, scan_layers=True)


def same(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_peft_got_the_logits_that_we_get_beside_and_merged(tmp_path):
    save_peft(seeded_adapter(UNTIED), UNTIED, tmp_path / "adapter")
    adapter = load_peft(tmp_path / "adapter", UNTIED)
    params, row = seeded_params(UNTIED), make_row(UNTIED, "two_images")
    plain = batch_logits(params, UNTIED, [row])[0][0]
    with np.load(GOLDEN) as golden:
        for kind, make in (("beside", attach_adapters), ("merged", apply_adapters)):
            found = batch_logits(make(params, adapter.tree, LORA), UNTIED, [row])[0][0]
            assert relative_error(found, golden[kind]) <= TOLERANCE, kind
            assert relative_error(found, plain) > 0.1


def test_peft_still_gets_them(tmp_path, live):
    pytest.importorskip("peft", reason="adapters are compared with peft (extra `parity`)")
    from tests.models.make_adapter_goldens import peft_logits

    save_peft(seeded_adapter(UNTIED), UNTIED, tmp_path / "adapter")
    with np.load(GOLDEN) as golden, warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)     # PEFT's of keys that are missing or unused
        for kind, logits in peft_logits(tmp_path / "adapter").items():
            assert relative_error(logits, golden[kind]) <= TOLERANCE


@pytest.mark.parametrize("cfg", [UNTIED, SCANNED], ids=["unrolled", "scanned"])
def test_what_is_saved_is_read_again_and_replaced(tmp_path, cfg):
    adapter = seeded_adapter(cfg)
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "old.txt").touch()
    save_peft(adapter, cfg, tmp_path / "adapter")
    assert {file.name for file in (tmp_path / "adapter").iterdir()} == {ADAPTER_CONFIG,
                                                                       ADAPTER_FILE}
    found = load_peft(tmp_path / "adapter", cfg)
    same(found.tree, adapter.tree)
    assert (found.rank, found.alpha, found.base) == (2, 5.0, "org/a-base")
    assert found.num_modules == adapter.num_modules == 3 * 2 + 3 * 2 + 1
    config = json.loads((tmp_path / "adapter" / ADAPTER_CONFIG).read_text())
    assert len(config["target_modules"]) == 13 and "lm_head" in config["target_modules"]
    assert "model.language_model.layers.2.self_attn.q_proj" in config["target_modules"]


def test_files_do_not_depend_on_the_layout(tmp_path):
    save_peft(seeded_adapter(UNTIED), UNTIED, tmp_path / "one")
    save_peft(load_peft(tmp_path / "one", SCANNED), SCANNED, tmp_path / "other")
    for name in (ADAPTER_CONFIG, ADAPTER_FILE):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "other" / name).read_bytes()


def test_layers_that_an_adapter_leaves_out_are_not_changed(tmp_path):
    save_peft(seeded_adapter(UNTIED), UNTIED, tmp_path)
    tensors = safetensors.numpy.load_file(tmp_path / ADAPTER_FILE)
    dropped = {n: x for n, x in tensors.items() if ".layers.1.self_attn.q_proj.lora_B" not in n}
    safetensors.numpy.save_file(dropped, tmp_path / ADAPTER_FILE)
    with pytest.raises(WeightsError, match="only one factor of .*/self_attn/q_proj/1/lora_a"):
        load_peft(tmp_path, SCANNED)
    safetensors.numpy.save_file({n: x for n, x in tensors.items() if ".layers.1." not in n},
                                tmp_path / ADAPTER_FILE)
    factors = load_peft(tmp_path, SCANNED).tree["model"]["layers"]["self_attn"]["q_proj"]
    for factor in factors.values():
        assert factor[0].any() and not factor[1].any() and factor[2].any()


def test_factors_that_peft_writes_otherwise_are_refused():
    shapes = {"visual": {"patch_embed": {"lora_a": np.zeros((96, 2)), "lora_b": np.zeros((2, 32))}}}
    with pytest.raises(
            WeightsError, match="factors of visual/patch_embed cannot be saved for PEFT"):
        adapted(shapes, UNTIED)
    assert not adapted({}, UNTIED)
    assert flax.traverse_util.flatten_dict(seeded_adapter(SCANNED).tree)[
        ("model", "layers", "mlp", "down_proj", "lora_a")].shape == (3, 56, 2)
