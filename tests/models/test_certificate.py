"""Certificates tell models apart, and do not mind how a model is stored."""

import dataclasses
import hashlib
import json

import numpy as np
import pytest
import safetensors.numpy

from guardjax.models.certificate import (certify, differences, load_certificate,
                                         save_certificate)
from guardjax.models.config import ModelConfig
from guardjax.models.hf_weights import SINGLE_FILE, WeightsError, save_hf
from guardjax.models.probes import make_probes, probe_logits
from tests.models.reference_cases import CONFIGS, SMALLEST, TIED, Row
from guardjax.models.releases import RELEASES
from tests.models.test_parity import TOLERANCE, relative_error, seeded_params

# What is asked of a certificate does not depend on depth, and compiling does.
SMALL = dataclasses.replace(SMALLEST, text=dataclasses.replace(TIED.text, num_hidden_layers=1))
OTHER = dataclasses.replace(SMALL, tie_word_embeddings=False, text=TIED.text)


@pytest.fixture(name="folder", scope="module")
def _folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "model"
    save_hf(seeded_params(SMALL), SMALL, folder)
    return folder


@pytest.fixture(name="certificate", scope="module")
def _certificate(folder):
    return certify(folder)[0]


def changed(folder, tmp_path, **tensors):
    """A copy with other tensors; `__` in a name stands for a dot."""
    save_hf(seeded_params(SMALL), SMALL, tmp_path / "changed")
    file = tmp_path / "changed" / SINGLE_FILE
    new = {name.replace("__", "."): value for name, value in tensors.items()}
    safetensors.numpy.save_file(safetensors.numpy.load_file(file) | new, file)
    return tmp_path / "changed"


def test_it_says_what_is_there(certificate, folder):
    stored = safetensors.numpy.load_file(folder / SINGLE_FILE)
    assert certificate.tensors == {
        name: {"dtype": "float32", "shape": list(value.shape),
               "sha256": hashlib.sha256(value.tobytes()).hexdigest()}
        for name, value in stored.items()}
    assert certificate.num_parameters == sum(value.size for value in stored.values())
    assert certificate.config == SMALL.to_hf() and certificate.finite
    assert certificate.dtypes == ("float32",)


def test_logits_are_those_of_the_model(folder):
    found, cfg, logits = certify(folder)
    for probe in make_probes(cfg):
        expected = probe_logits(seeded_params(SMALL), SMALL, probe)
        np.testing.assert_array_equal(logits[probe.name], expected)
        summary = found.probes[probe.name]
        assert summary["tokens"] == len(probe.tokens) == len(expected)
        assert summary["next"] == expected[-1].argmax()
        exact = np.log(np.exp(expected[-1].astype(np.float64)).sum())
        assert summary["log_sum_exp"] == pytest.approx(exact, rel=1e-12)


def test_there_and_back(certificate, tmp_path):
    save_certificate(certificate, tmp_path / "new" / "c.json")
    back = load_certificate(tmp_path / "new" / "c.json")
    assert back.sha256 == certificate.sha256
    assert differences(back, certificate, tolerance=0) == []


def test_shards_and_names_in_memory_do_not_matter(certificate, tmp_path):
    save_hf(seeded_params(SMALL), SMALL, tmp_path / "shards", max_shard_bytes=60_000)
    again = certify(tmp_path / "shards")[0]
    assert again.sha256 == certificate.sha256 and differences(again, certificate) == []


def test_one_changed_number_is_found_by_hash_and_logits(certificate, folder, tmp_path):
    norm = np.asarray(seeded_params(SMALL)["model"]["norm"]["scale"]).copy()
    norm[3] += 1
    found = certify(changed(folder, tmp_path, model__norm__weight=norm))[0]
    tensors, *probes = differences(found, certificate)
    assert tensors == "tensors: 1 different: model.norm.weight"
    assert len(probes) == 3 and all("logits lie" in line for line in probes)


def test_a_model_of_another_shape(certificate, tmp_path):
    save_hf(seeded_params(OTHER), OTHER, tmp_path / "other")
    other = certify(tmp_path / "other")[0]
    said = "\n".join(differences(other, certificate))
    assert "config: tie_word_embeddings is False, not True" in said
    assert "num_hidden_layers (2, not 1)" in said
    assert "tensors: 13 not in the other: lm_head.weight" in said
    assert "different" not in said.split("tensors")[1]
    assert "tensors: 13 missing: lm_head.weight" in "\n".join(differences(certificate, other))


@pytest.mark.parametrize(("apart", "same"), [(5e-6, True), (2e-5, False), (-2e-5, False)])
def test_logits_may_differ_by_what_machines_do(certificate, apart, same):
    probe = dict(certificate.probes["words"])
    probe["sample"] = [*probe["sample"][:-1], probe["sample"][-1] + apart * probe["largest"]]
    found = dataclasses.replace(certificate, probes=certificate.probes | {"words": probe})
    assert bool(differences(found, certificate)) != same


def test_a_probe_that_one_of_them_lacks_is_a_difference(certificate):
    none = dataclasses.replace(certificate, probes={})
    for pair in ((certificate, none), (none, certificate)):
        said = differences(*pair)
        assert len(said) == 3 and all("logits lie inf apart" in line for line in said)


@pytest.mark.slow
def test_half_precision_differs_by_rounding_only(certificate, folder):
    found = certify(folder, dtype="bfloat16")[0]
    said = differences(found, certificate)
    assert said and all("logits lie" in line for line in said)
    assert differences(found, certificate, tolerance=0.1) == []


def test_numbers_that_are_none_are_never_the_same(folder, tmp_path):
    nan = np.full(48, np.nan, np.float32)
    found = certify(changed(folder, tmp_path, model__norm__weight=nan))[0]
    assert not found.finite
    assert len([line for line in differences(found, found) if "logits lie nan" in line]) == 3


@pytest.mark.parametrize(("text", "message"), [
    ("{", "is not JSON"), ("{}", "is no certificate of format 1"),
    ('{"format": 2}', "is no certificate of format 1; write it again")])
def test_other_files_are_refused(tmp_path, text, message):
    (tmp_path / "c.json").write_text(text)
    with pytest.raises(WeightsError, match=message):
        load_certificate(tmp_path / "c.json")
    with pytest.raises(FileNotFoundError, match="there is no certificate"):
        load_certificate(tmp_path / "none.json")


def test_probes_are_the_same_for_ever():
    """Certificates of years ago must be comparable: change these numbers only with FORMAT."""
    digest = hashlib.sha256()
    for probe in make_probes(ModelConfig.from_hf(RELEASES["7B"])):
        digest.update(json.dumps([probe.name, probe.tokens.tolist(), probe.grids]).encode())
        digest.update(b"" if probe.patches is None else probe.patches.tobytes())
    assert digest.hexdigest()[:16] == "b446fe70b4d922b0"


@pytest.mark.parametrize("window_size", [8, 16, 40])
def test_probes_fit_models_of_any_window(window_size):
    cfg = dataclasses.replace(TIED, vision=dataclasses.replace(TIED.vision,
                                                               window_size=window_size))
    for probe in make_probes(cfg):
        units = sum(t * h * w for t, h, w in probe.grids) // 4
        assert (probe.tokens == cfg.image_token_id).sum() == units
        assert 0 <= probe.tokens.min() and probe.tokens.max() < cfg.text.vocab_size


@pytest.mark.parametrize("name", CONFIGS)
def test_the_reference_answers_the_probes_alike(name, tmp_path, live):
    from guardjax.cli.reference import reference_logits
    from tests.models import reference_model

    cfg, params = CONFIGS[name], seeded_params(CONFIGS[name])
    save_hf(params, cfg, tmp_path / "model")
    probes = make_probes(cfg)
    versions, found = reference_logits(tmp_path / "model", cfg, probes)
    assert "transformers" in versions
    model = reference_model.build(cfg)
    for probe in probes:
        row = Row(probe.tokens, list(probe.grids), probe.patches)
        np.testing.assert_allclose(found[probe.name], reference_model.run(model, row)[0],
                                   rtol=0, atol=1e-4)
        assert relative_error(probe_logits(params, cfg, probe), found[probe.name]) <= TOLERANCE
