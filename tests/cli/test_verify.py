"""`guardjax verify` as a person uses it."""

import json
import shutil
import sys

import numpy as np
import pytest
import safetensors.numpy

from guardjax.models.hf_weights import load_hf
from guardjax.models.probes import probe_logits

SUM = "sha256 "


@pytest.fixture(name="copy")
def _copy(tiny_model, tmp_path):
    return shutil.copytree(tiny_model, tmp_path / "copy [1]")


def test_a_copy_has_the_certificate_of_the_original(guardjax, tiny_model, copy, tmp_path, capsys):
    certificate = tmp_path / "new" / "c.json"
    assert guardjax("verify", tiny_model, "--out", certificate) == 0
    first = capsys.readouterr().out
    assert "tied head" in first and " entries; pictures of 4,096 to 4,096 pixels" in first
    assert "two pictures" in first and f"certificate in {certificate}" in first
    assert guardjax("verify", copy, "--against", certificate) == 0
    out = capsys.readouterr().out
    assert f"model      {copy}" in out and f"the same as {certificate}" in out
    assert first.split(SUM)[1].split()[0] == out.split(SUM)[1].split()[0]


def test_another_model_has_another(guardjax, copy, tmp_path, capsys):
    certificate = tmp_path / "c.json"
    assert guardjax("verify", copy, "--out", certificate) == 0
    file = copy / "model.safetensors"
    tensors = safetensors.numpy.load_file(file)
    tensors["model.norm.weight"] = tensors["model.norm.weight"] * 2
    safetensors.numpy.save_file(tensors, file)
    assert guardjax("verify", copy, "--against", certificate) == 1
    assert "tensors: 1 different: model.norm.weight" in capsys.readouterr().err


def test_a_model_without_numbers_fails(guardjax, copy, capsys):
    file = copy / "model.safetensors"
    tensors = safetensors.numpy.load_file(file)
    tensors["model.norm.weight"] = np.full_like(tensors["model.norm.weight"], np.inf)
    safetensors.numpy.save_file(tensors, file)
    assert guardjax("verify", copy) == 1
    assert "some logits are not finite numbers" in capsys.readouterr().err


def test_weights_alone_are_verified_and_said_to_be_alone(guardjax, copy, capsys):
    (copy / "tokenizer.json").unlink()
    assert guardjax("verify", copy) == 0
    assert "tokenizer  there is none" in capsys.readouterr().out


@pytest.mark.parametrize(("file", "content", "message"), [
    ("config.json", '{"model_type": "llama", "vision_config": {}}', "read is 'qwen2_5_vl' or"),
    ("model.safetensors", "cut", "is not a whole safetensors file"),
    ("preprocessor_config.json", '{"patch_size": 14}', "processor has patch_size 14"),
    ("tokenizer_config.json", "{", "tokenizer_config.json"),
    ("model.safetensors", None, "has neither model.safetensors nor")])
def test_a_broken_directory_is_refused(guardjax, copy, capsys, file, content, message):
    (copy / file).unlink() if content is None else (copy / file).write_text(content)
    assert guardjax("verify", copy) == 2
    assert message in capsys.readouterr().err


def test_options_that_do_not_go_together(guardjax, copy, tmp_path, capsys):
    assert guardjax("verify", copy, "--against", tmp_path / "none.json") == 2
    assert "there is no certificate" in capsys.readouterr().err
    assert guardjax("verify", copy, "--reference", "--dtype", "bfloat16") == 2
    assert "--reference compares in float32" in capsys.readouterr().err
    (tmp_path / "c.json").write_text(json.dumps({"format": 1}))
    assert guardjax("verify", copy, "--against", tmp_path / "c.json") == 2


def test_a_certificate_is_not_replaced_nor_compared_across_types(guardjax, copy, tmp_path, capsys):
    file = tmp_path / "c.json"
    assert guardjax("verify", copy, "--out", file) == 0
    text = file.read_text()
    assert guardjax("verify", copy, "--against", file, "--out", tmp_path / "." / "c.json") == 2
    assert "which is compared with; choose another file" in capsys.readouterr().err
    assert guardjax("verify", copy, "--against", file, "--dtype", "bfloat16") == 2
    assert "computed in float32 and this would be in bfloat16" in capsys.readouterr().err
    assert file.read_text() == text


def test_a_reference_without_numbers_is_no_agreement(guardjax, copy, capsys, monkeypatch):
    def reference_logits(path, cfg, probes):
        found = {probe.name: probe_logits(load_hf(path)[1], cfg, probe) for probe in probes}
        found["two pictures"] = np.full_like(found["two pictures"], np.nan)
        return "none", found

    monkeypatch.setattr("guardjax.cli.reference.reference_logits", reference_logits)
    assert guardjax("verify", copy, "--reference") == 1
    assert "the logits are not those of the reference" in capsys.readouterr().err


def test_without_torch_there_is_no_reference(guardjax, copy, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    assert guardjax("verify", copy, "--reference") == 2
    assert "pip install 'guardjax[parity]'" in capsys.readouterr().err


def test_the_reference_is_asked_where_it_is(guardjax, copy, capsys, live):
    assert guardjax("verify", copy, "--reference") == 0
    assert "largest relative error" in capsys.readouterr().out
