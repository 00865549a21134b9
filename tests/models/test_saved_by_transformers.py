"""Checkpoints as transformers saves them: stored config and index, weights from seeds."""

import json
import pathlib

import jax
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from guardjax.models.hf_names import tensor_table
from guardjax.models.hf_weights import load_hf
from tests.models.reference_cases import CONFIGS, ROWS, make_row, seeded_tensor
from tests.models.test_parity import GOLDEN, TOLERANCE, batch_logits, relative_error, seeded_params

SAVED = pathlib.Path(__file__).parents[1] / "golden" / "models" / "saved.json"


def write_checkpoint(folder, name, dtype):
    """The directory that transformers wrote, put together again from what was stored of it."""
    stored = json.loads(SAVED.read_text(encoding="utf-8"))["models"][name]
    shapes = {spec.name: spec.shape for spec in tensor_table(CONFIGS[name])}
    weight_map = stored["index"]["weight_map"]
    for file in set(weight_map.values()):
        safetensors.numpy.save_file(
            {tensor: seeded_tensor(tensor, shapes[tensor]).astype(dtype)
             for tensor, where in weight_map.items() if where == file},
            folder / file, metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(stored["config"]), encoding="utf-8")
    (folder / "model.safetensors.index.json").write_text(
        json.dumps(stored["index"]), encoding="utf-8")


@pytest.mark.parametrize("name", CONFIGS)
def test_it_loads_with_the_reference_logits(tmp_path, name):
    write_checkpoint(tmp_path, name, np.float32)
    cfg, params = load_hf(tmp_path)
    assert (cfg.vision, cfg.text) == (CONFIGS[name].vision, CONFIGS[name].text)
    rows = [make_row(cfg, row) for row in ROWS]
    logits, _ = batch_logits(params, cfg, rows)
    with np.load(GOLDEN) as golden:
        for number, row in enumerate(ROWS):
            reference = golden[f"{name}/{row}/logits"]
            assert relative_error(logits[number, :len(reference)], reference) <= TOLERANCE, row


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, np.float16])
def test_half_precision_is_read_exactly(tmp_path, dtype):
    write_checkpoint(tmp_path, "untied", dtype)
    _, wide = load_hf(tmp_path)
    _, narrow = load_hf(tmp_path, dtype=np.dtype(dtype).name)
    for found, leaf, exact in zip(*map(jax.tree.leaves, (
            wide, narrow, seeded_params(CONFIGS["untied"]))), strict=True):
        np.testing.assert_array_equal(found, exact.astype(dtype).astype(np.float32))
        np.testing.assert_array_equal(leaf, exact.astype(dtype))
        assert found.dtype == np.float32 and leaf.dtype == dtype
