"""Equal to the reference implementation: stored logits always, the live model where torch is."""

import functools
import pathlib

import flax.traverse_util
import jax
import numpy as np
import pytest

from guardjax.models import qwen2_5_vl as model
from guardjax.models.hf_names import from_hf_layout, tensor_table
from guardjax.models.hf_weights import load_hf, save_hf
from tests.models.reference_cases import CONFIGS, ROWS, make_inputs, make_row, seeded_tensor

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "models" / "logits.npz"
TOLERANCE = 1e-5


def seeded_params(cfg):
    return flax.traverse_util.unflatten_dict({
        spec.path: from_hf_layout(spec, seeded_tensor(spec.name, spec.shape))
        for spec in tensor_table(cfg)})


def batch_logits(params, cfg, rows):
    segment, vision = make_inputs(cfg, rows)
    return np.asarray(logits_of(params, cfg, segment, vision)), segment


@functools.partial(jax.jit, static_argnums=1)
def logits_of(params, cfg, segment, vision):
    features = None if vision is None else model.encode_images(params, cfg, vision)
    (hidden,), _ = model.forward(params, cfg, [segment], features)
    return model.unembed(params, cfg, hidden)


def relative_error(ours, reference):
    return np.abs(ours - reference).max() / np.abs(reference).max()


@pytest.mark.parametrize("config_name", CONFIGS)
def test_one_mixed_batch_equals_the_stored_rows(config_name):
    """Text only, one image and two images in one padded batch, each row as the reference alone."""
    cfg = CONFIGS[config_name]
    rows = [make_row(cfg, name) for name in ROWS]
    logits, segment = batch_logits(seeded_params(cfg), cfg, rows)
    with np.load(GOLDEN) as golden:
        for number, (name, row) in enumerate(zip(ROWS, rows)):
            length = len(row.tokens)
            reference = golden[f"{config_name}/{name}/logits"]
            assert relative_error(logits[number, :length], reference) <= TOLERANCE, name
            np.testing.assert_array_equal(segment.positions[number, :length],
                                          golden[f"{config_name}/{name}/positions"])


@pytest.mark.parametrize("config_name", CONFIGS)
def test_live_reference(config_name, live):
    from tests.models import reference_model

    cfg = CONFIGS[config_name]
    rows = [make_row(cfg, name) for name in ROWS]
    reference = reference_model.build(cfg)
    logits, segment = batch_logits(seeded_params(cfg), cfg, rows)
    for number, (name, row) in enumerate(zip(ROWS, rows)):
        length = len(row.tokens)
        expected, positions = reference_model.run(reference, row)
        assert relative_error(logits[number, :length], expected) <= TOLERANCE, name
        np.testing.assert_array_equal(segment.positions[number, :length], positions)


@pytest.mark.parametrize("config_name", CONFIGS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_the_reference_loads_what_we_save(config_name, dtype, tmp_path, live):
    from tests.models import reference_model

    cfg = CONFIGS[config_name]
    save_hf(seeded_params(cfg), cfg, tmp_path / "model", max_shard_bytes=40_000, dtype=dtype)
    _, params = load_hf(tmp_path / "model")
    row = make_row(cfg, "two_images")
    reference, _ = reference_model.run(reference_model.load(tmp_path / "model"), row)
    assert relative_error(batch_logits(params, cfg, [row])[0][0], reference) <= TOLERANCE


@pytest.mark.parametrize("config_name", CONFIGS)
def test_we_load_what_the_reference_saves(config_name, tmp_path, live):
    from tests.models import reference_model

    cfg = CONFIGS[config_name]
    reference_model.build(cfg).save_pretrained(tmp_path, max_shard_size="60KB")
    found, params = load_hf(tmp_path)
    assert (found.vision, found.text) == (cfg.vision, cfg.text)
    jax.tree.map(np.testing.assert_array_equal, params, seeded_params(cfg))
