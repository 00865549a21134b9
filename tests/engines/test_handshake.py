"""An engine that is not one for this model is refused before anything is computed."""

import dataclasses
import json
import shutil
import socket

import pytest

from guardjax import models
from guardjax.data.batching import save_batcher
from guardjax.data.tokenizer import train_tokenizer
from guardjax.rl.engine import EngineError
from .fake_engine import Behaviour, running

pytestmark = pytest.mark.usefixtures("quick_compilation")
KINDS = ("vllm", "sglang")


@pytest.fixture(scope="module", name="other_tokenizer")
def _other_tokenizer(tmp_path_factory):
    """Trained on other words, with the same special tokens."""
    return train_tokenizer(["knife gun policy safe zebra quagga"] * 9, 600,
                           tmp_path_factory.mktemp("tokenizer"))


def refused(kind, served, tmp_path, problem, behaviour=None, tokenizer=None, folder=None):
    with running(kind, folder or served.folder, behaviour, tokenizer) as fake:
        with pytest.raises(EngineError, match=f"(?s)engine {kind} at {fake.url}.*{problem}"):
            served.connect(kind, fake.url, tmp_path)
        assert not any("update" in path or "rpc" in path for path in fake.paths), "no weights yet"


@pytest.mark.parametrize("kind", KINDS)
def test_another_tokenizer_than_its_folder_has(kind, served, other_tokenizer, tmp_path):
    """As with `--tokenizer`: only the engine itself can tell."""
    refused(kind, served, tmp_path, r"another tokenizer than the model that is trained: it makes "
            r"\[.*ours \[", tokenizer=other_tokenizer)


@pytest.mark.parametrize("kind", KINDS)
def test_special_tokens_of_another_order(kind, served, tmp_path):
    """Every word is as ours, and two special tokens have changed places."""
    folder = tmp_path / "swapped"
    shutil.copytree(served.folder, folder)
    text = (folder / "tokenizer.json").read_text("utf-8")
    one, two = "<|im_start|>", "<|object_ref_end|>"
    swapped = text.replace(one, "\0").replace(two, one).replace("\0", two)
    (folder / "tokenizer.json").write_text(swapped, "utf-8")
    from guardjax.data.tokenizer import load_tokenizer

    refused(kind, served, tmp_path, "another tokenizer than the model that is trained: it makes",
            tokenizer=load_tokenizer(folder))


@pytest.mark.parametrize("kind", KINDS)
def test_another_vocabulary_in_its_folder(kind, served, other_tokenizer, tmp_path):
    folder = tmp_path / "other"
    shutil.copytree(served.folder, folder)
    other_tokenizer.save(folder)
    refused(kind, served, tmp_path, "another tokenizer .* has another vocabulary",
            Behaviour(shown_folder=str(folder)))


@pytest.mark.parametrize("kind", KINDS)
def test_another_model(kind, served, tmp_path):
    cfg = served.model.cfg
    other = dataclasses.replace(cfg, text=dataclasses.replace(cfg.text, rope_theta=12345.0))
    folder = tmp_path / "other"
    models.save_hf(served.params(), other, folder)
    save_batcher(served.model.batcher, folder)
    refused(kind, served, tmp_path, "another model than the one that is trained: its config.json "
            "differs in .*; start it with the run's base", folder=folder)


def test_other_limits_of_picture_sizes(served, tmp_path):
    folder = tmp_path / "other"
    shutil.copytree(served.folder, folder)
    file = folder / "preprocessor_config.json"
    config = json.loads(file.read_text())
    config["max_pixels"] = config["size"]["longest_edge"] = 128 * 128
    file.write_text(json.dumps(config))
    refused("vllm", served, tmp_path, "whose processor makes other pictures",
            Behaviour(shown_folder=str(folder)))


def test_a_model_that_is_no_folder_here(served, tmp_path):
    refused("vllm", served, tmp_path, "serves 'Qwen/Qwen2.5-VL-7B-Instruct', which is no model "
            "folder here; start it with the absolute path",
            Behaviour(shown_folder="Qwen/Qwen2.5-VL-7B-Instruct"))


@pytest.mark.parametrize("kind", KINDS)
def test_log_probabilities_of_another_distribution(kind, served, tmp_path):
    refused(kind, served, tmp_path, "than it samples from: .*--logprobs-mode processed_logprobs",
            Behaviour(raw_logprobs=True))


@pytest.mark.parametrize("kind", KINDS)
def test_an_engine_that_does_not_heed_logit_bias(kind, served, tmp_path):
    """As SGLang-JAX in August 2026."""
    refused(kind, served, tmp_path, "does not heed logit_bias: asked for token",
            Behaviour(heeds_bias=False))


@pytest.mark.parametrize("kind, problem", [
    ("vllm", "refuses /weight_info with status 404"),
    ("sglang", "does not tell which weights it has: .* no weight_version")])
def test_an_engine_without_versions_of_weights(kind, problem, served, tmp_path):
    refused(kind, served, tmp_path, problem, Behaviour(tells_version=False))


@pytest.mark.parametrize("kind, other, problem", [
    ("vllm", "sglang", "refuses /v1/models with status 404"),
    ("sglang", "vllm", "refuses /get_model_info with status 404")])
def test_the_other_engine(kind, other, problem, served, tmp_path):
    with running(other, served.folder) as fake:
        with pytest.raises(EngineError, match=problem):
            served.connect(kind, fake.url, tmp_path)


def test_nobody_there(served, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(EngineError, match=rf"engine vllm at http://127.0.0.1:{port} does not "
                                          r"answer \(.*refused.*\); start it first"):
        served.connect("vllm", f"http://127.0.0.1:{port}", tmp_path, retry_seconds=60.0)
