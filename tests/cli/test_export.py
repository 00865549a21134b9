"""`guardjax export`: what is written is whole, loads elsewhere, and says what it is."""

import json
import shutil

import jax
import numpy as np
import pytest
import safetensors.numpy
import transformers
import yaml

import guardjax.models as models
from guardjax.eval.guard import weights_hash
from guardjax.eval.records import Prediction, save_predictions
from guardjax.eval.tables import ResultRow, save_results

A = np.linspace(-1, 1, 16, dtype=np.float32)[None]
B = np.linspace(0.5, 0.9, 32, dtype=np.float32)[:, None]
CHANGE = 2 * (B @ A).T      # alpha 2, rank 1


@pytest.fixture(name="adapter")
def _adapter(tmp_path):
    """Rank 1 on one kernel [out, in] of the tiny model; see `CHANGE`."""
    folder = tmp_path / "my_lora"
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps(
        {"peft_type": "LORA", "r": 1, "lora_alpha": 2, "base_model_name_or_path": "org/a-base"}))
    stem = "base_model.model.model.language_model.layers.0.mlp.up_proj.lora_"
    safetensors.numpy.save_file({f"{stem}A.weight": A, f"{stem}B.weight": B},
                                folder / "adapter_model.safetensors")
    return folder


def header(folder):
    _, text, _ = (folder / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    return yaml.safe_load(text)


def test_all_of_the_model_goes_along(guardjax, tiny_model, tmp_path, capsys):
    out = tmp_path / "new" / "my_guard"
    (tmp_path / "secret.txt").touch()
    assert guardjax("export", tiny_model, "--out", out) == 0
    assert weights_hash(out) in capsys.readouterr().out
    names = {file.name for file in tiny_model.iterdir()}
    assert {file.name for file in out.iterdir()} == names | {"README.md"}
    for name in names - {"config.json"}:
        assert (out / name).read_bytes() == (tiny_model / name).read_bytes(), name
    assert all(file.stat().st_mode & 0o044 == 0o044 for file in (out, *out.iterdir()))
    assert [path.name for path in out.parent.iterdir()] == ["my_guard"]
    tokenizer = transformers.AutoTokenizer.from_pretrained(out)
    assert tokenizer.convert_tokens_to_ids("<|image_pad|>") == models.load_hf(out)[0].image_token_id


def test_the_card_says_what_is_known_and_no_more(guardjax, tiny_model, tmp_path):
    assert guardjax("export", tiny_model, "--out", tmp_path / "my_guard") == 0
    text = (tmp_path / "my_guard" / "README.md").read_text(encoding="utf-8")
    assert header(tmp_path / "my_guard") == {
        "library_name": "transformers", "pipeline_tag": "image-text-to-text",
        "tags": ["guardjax", "qwen2_5_vl", "content-moderation"]}
    assert "# my\\_guard" in text and weights_hash(tmp_path / "my_guard") in text
    assert "not stated; that of the model it was made from applies" in text
    assert str(tmp_path) not in text and str(tiny_model.parent) not in text
    assert guardjax("export", tiny_model, "--out", tmp_path / "b", "--license", "apache-2.0",
                    "--base-model", "Qwen/Qwen2.5-VL-3B-Instruct") == 0
    assert header(tmp_path / "b")["license"] == "apache-2.0"
    assert header(tmp_path / "b")["base_model"] == "Qwen/Qwen2.5-VL-3B-Instruct"


def test_folders_may_be_named_from_where_one_stands(guardjax, tiny_model, adapter, tmp_path,
                                                    monkeypatch):
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("empty")
    monkeypatch.chdir(tiny_model)
    assert guardjax("export", ".", "--out", tmp_path / "link") == 0
    text = (tmp_path / "empty" / "README.md").read_text(encoding="utf-8")
    assert "# empty" in text and "| exported from | , by" not in text
    monkeypatch.chdir(adapter)
    assert guardjax("export", tiny_model, "--out", tmp_path / "b", "--adapter", ".") == 0
    assert "| my\\_lora, rank 1" in (tmp_path / "b" / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_adapters_are_merged_before_rounding(guardjax, tiny_model, adapter, tmp_path, dtype):
    out = tmp_path / "out"
    assert guardjax("export", tiny_model, "--out", out, "--adapter", adapter, "--dtype", dtype,
                    "--shard-mb", "1") == 0
    _, before = models.load_hf(tiny_model)
    _, after = models.load_hf(out)
    kernel = np.asarray(before["model"]["layers_0"]["mlp"]["up_proj"]["kernel"]) + CHANGE
    np.testing.assert_array_equal(after["model"]["layers_0"]["mlp"]["up_proj"]["kernel"],
                                  kernel.astype(jax.numpy.dtype(dtype)).astype(np.float32))
    assert json.loads((out / "config.json").read_text())["dtype"] == dtype
    assert header(out)["base_model"] == "org/a-base"
    assert "my\\_lora, rank 1, alpha 2, merged into 1 kernels" in (out / "README.md").read_text()


def test_nothing_is_overwritten_and_nothing_left_behind(guardjax, tiny_model, tmp_path, capsys,
                                                        monkeypatch):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    assert guardjax("export", tiny_model, "--out", tmp_path / "full") == 2
    assert "is not an empty directory; choose another" in capsys.readouterr().err
    monkeypatch.setattr("guardjax.cli.model_card.model_card", lambda facts: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        guardjax("export", tiny_model, "--out", tmp_path / "none")
    monkeypatch.undo()
    monkeypatch.setattr("guardjax.cli.export._FILES", ("preprocessor_config.json",))
    assert guardjax("export", tiny_model, "--out", tmp_path / "none") == 2
    assert "has no tokenizer.json" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["full"]
    assert (tmp_path / "full" / "mine.txt").read_text() == "mine"


@pytest.mark.parametrize(("file", "message"), [
    ("config.json", "config.json"), ("tokenizer.json", "has no tokenizer.json"),
    ("preprocessor_config.json", "has no preprocessor_config.json"),
    ("model.safetensors", "has neither model.safetensors nor")])
def test_half_a_model_is_not_exported(guardjax, tiny_model, tmp_path, capsys, file, message):
    source = shutil.copytree(tiny_model, tmp_path / "source")
    (source / file).unlink()
    assert guardjax("export", source, "--out", tmp_path / "out") == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_adapter_that_does_not_fit_is_refused(guardjax, tiny_model, adapter, tmp_path, capsys):
    (adapter / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 2, "lora_alpha": 2}')
    assert guardjax("export", tiny_model, "--out", tmp_path / "out", "--adapter", adapter) == 2
    assert "rank 2 on a kernel" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--license", "--base-model"])
def test_a_name_cannot_write_into_the_card(guardjax, tiny_model, tmp_path, option, capsys):
    with pytest.raises(SystemExit):
        guardjax("export", tiny_model, "--out", tmp_path / "out", option, "a\nlicense: mit")
    assert "is not a name such as" in capsys.readouterr().err


def evaluation(folder, model_hash, variant="trained"):
    """What an evaluation over a person's own pictures leaves."""
    rows = [Prediction(model=model_hash, variant=variant, seed=0, split="test",
                       example_id=f"own/test/{i}", kind="judge", image_id=f"p{i}",
                       policy_id="house", label="safe", outcome="safe") for i in range(3)]
    save_predictions(folder / "predictions.jsonl", rows)
    save_results(folder / "results.json", [
        ResultRow(variant, "test", "f1", 0.5, 0.41, 0.6, 3),
        ResultRow(variant, "test/house", "accuracy", 0.9, 0.8, 1.0, 3),
        ResultRow("always_safe", "test", "f1", 0.123, 0.1, 0.2, 3)])


def test_the_card_has_the_results_of_these_weights_alone(guardjax, tiny_model, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(tiny_model, run / "model")
    assert guardjax("export", run / "model", "--out", tmp_path / "none") == 0
    assert "## Measured" not in (tmp_path / "none/README.md").read_text()
    evaluation(run, weights_hash(tiny_model))
    assert guardjax("export", run / "model", "--out", tmp_path / "some") == 0
    text = (tmp_path / "some/README.md").read_text()
    # Beside it what always safe has; always unsafe is not there.
    assert "| test | F1 | 50.0 [41.0–60.0] | 12.3 / – | 3 |" in text
    assert "On own, by `guardjax eval`" in text and text.count("12.3") == 1
    assert "90" not in text.partition("## Measured")[2]
    assert "rounded" not in text and "states no quality" not in text
    assert guardjax("export", tiny_model, "--results", run, "--dtype", "bfloat16", "--out",
                    tmp_path / "half") == 0
    assert "before these were rounded to bfloat16" in (tmp_path / "half/README.md").read_text()

    evaluation(run, "0123456789abcdef", "other\nmodel")
    assert guardjax("export", run / "model", "--out", tmp_path / "still_none") == 0
    assert "## Measured" not in (tmp_path / "still_none/README.md").read_text()
    capsys.readouterr()
    assert guardjax("export", run / "model", "--results", run, "--out", tmp_path / "bad") == 2
    said = capsys.readouterr().err
    assert f"no answers of model {weights_hash(tiny_model)}" in said and "0123456789abcdef" in said
    assert guardjax("export", tiny_model, "--results", tmp_path, "--out", tmp_path / "bad") == 2
    assert "has no predictions.jsonl: give a folder of guardjax eval" in capsys.readouterr().err
    assert not (tmp_path / "bad").exists()


def test_results_without_the_adapter_are_not_the_models(guardjax, tiny_model, adapter, tmp_path,
                                                        capsys):
    evaluation(tmp_path, weights_hash(tiny_model))
    assert guardjax("export", tiny_model, "--adapter", adapter, "--results", tmp_path, "--out",
                    tmp_path / "out") == 2
    assert "they were measured without it" in capsys.readouterr().err
