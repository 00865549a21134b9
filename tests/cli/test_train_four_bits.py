"""A run whose first stage keeps its base in four bits reads it so, and can be resumed later on."""

import dataclasses
import shutil

import jax
import pytest

import guardjax.models as models
from guardjax.cli import compose
from guardjax.cli.model_folder import save_model
from guardjax.data.batching import load_batcher
from .conftest import STAGE, write_config


@pytest.fixture(name="model", scope="module")
def _model(tiny_model, tmp_path_factory):
    """A base whose kernels are whole blocks of 64."""
    cfg, _ = models.load_hf(tiny_model)
    cfg = dataclasses.replace(
        cfg, vision=dataclasses.replace(cfg.vision, out_hidden_size=64),
        text=dataclasses.replace(cfg.text, hidden_size=64, intermediate_size=64,
                                 mrope_section=(8, 12, 12)))
    params = models.init_params(cfg, jax.random.key(0))
    folder = tmp_path_factory.mktemp("models") / "wide"
    return save_model(cfg, params, load_batcher(compose.model_dir("base")), folder)


def weights(folder):
    return (folder / "model" / "model.safetensors").read_bytes()


def test_a_base_in_four_bits_is_read_so(guardjax, model, tmp_path, monkeypatch):
    pytest.importorskip("qwix", reason="four bits need qwix (extra `qlora`)")
    from guardjax.models import nf4

    made, real = [], nf4.quantise_one_by_one

    def counted(*args):
        made.append(args[0])
        return real(*args)

    monkeypatch.setattr(nf4, "quantise_one_by_one", counted)
    stages = [{"kind": "sft", "name": name, "policies": "L3", "lora": lora} | STAGE | {"steps": 1}
              for name, lora in (("small", {"rank": 2, "base": "nf4"}), ("whole", {"rank": 2}))]
    config = write_config(tmp_path / "qlora.py", name="qlora", base=str(model), stages=stages)

    def train(name):
        return guardjax("train", "--config", config, "--out", tmp_path / name)

    assert train("run") == 0 and len(made) == 7      # the kernels of its one layer
    # Resumed in the second stage, which begins with ordinary weights.
    shutil.copytree(tmp_path / "run", tmp_path / "resumed")
    shutil.rmtree(tmp_path / "resumed" / "model")
    assert train("resumed") == 0
    assert weights(tmp_path / "resumed") == weights(tmp_path / "run")
