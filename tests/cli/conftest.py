"""The command line as a person uses it, on a model small enough to compile in a second or two."""

import dataclasses

import jax
import numpy as np
import pytest

import guardjax.models as models
from guardjax.cli import compose, main
from guardjax.cli.model_folder import save_model
from guardjax.data.batching import load_batcher
from guardjax.eval import guard
from guardjax.rewards.compose import Composition, Part
from guardjax.rewards.named import COMPOSITIONS

# Sampling, rewards and both kinds of loss are in it. All runs of this folder share these numbers,
# and with them their compiled programs.
STAGE = {"steps": 12, "batch": 4, "freeze": ("visual",), "optim": {"lr": 1e-2, "warmup_steps": 1}}
RL = {"group_size": 2, "max_tokens": 4, "entropy_coef": 0.1, "reward": "letters"}
RUN = {
    "world": {"sizes": {"train": 40, "test": 4}}, "checkpoint": {"every_steps": 4},
    "log": {"every_steps": 1, "table_every_steps": 2, "groups_every_steps": 2},
    "guard": {"max_bad_steps": 2},
}
PROMPT_BUCKETS = (128, 512)     # the usual limit, but fewer programs on the way to it


def letters(examples, completions):
    """A reward that an untrained model earns too, so that GRPO has something to learn from."""
    del examples
    return np.array([sum(map(str.isalpha, text)) for text in completions], float), np.ones(
        len(completions), bool)


def write_config(file, **run):
    """Writes a config file."""
    file.write_text(f"def get_config():\n    return {RUN | run!r}\n")
    return file


@pytest.fixture(scope="module", autouse=True)
def _own_world(tmp_path_factory):
    """Worlds and compiled programs of a test run are shared by its tests and by nobody else."""
    def load(path):
        return dataclasses.replace(load_batcher(path), prompt_buckets=PROMPT_BUCKETS)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GUARDJAX_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "cache"))
        patch.setattr(compose, "load_batcher", load)
        patch.setattr(guard, "load_batcher", load)
        patch.setitem(COMPOSITIONS, "letters", Composition((Part("letters", letters),)))
        yield


def save_tiny(folder, heads, width):
    """A model directory: the shipped base with one narrow layer, and no training."""
    base = compose.model_dir("base")
    cfg, _ = models.load_hf(base)
    cfg = dataclasses.replace(
        cfg,
        vision=dataclasses.replace(
            cfg.vision, depth=1, hidden_size=16, intermediate_size=16, num_heads=1,
            out_hidden_size=width, fullatt_block_indexes=(0,)),
        text=dataclasses.replace(
            cfg.text, hidden_size=width, intermediate_size=32, num_hidden_layers=1,
            num_attention_heads=heads, num_key_value_heads=heads, mrope_section=(2, 3, 3)))
    params = models.init_params(cfg, jax.random.key(0))
    return save_model(cfg, params, load_batcher(base), folder)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory):
    """A model directory for one device; its head cannot be split."""
    return save_tiny(tmp_path_factory.mktemp("models") / "tiny", heads=1, width=16)


@pytest.fixture(scope="session")
def tiny_pair(tmp_path_factory):
    """A model directory with two heads, for two ways of `tensor`."""
    return save_tiny(tmp_path_factory.mktemp("models") / "pair", heads=2, width=32)


@pytest.fixture(scope="session")
def config_file(tiny_model, tmp_path_factory):
    """A config file of SFT and GRPO that starts from `tiny_model`."""
    stages = [{"kind": kind, "policies": "L3"} | STAGE | ({"rl": RL} if kind == "grpo" else {})
              for kind in ("sft", "grpo")]
    return write_config(tmp_path_factory.mktemp("configs") / "tiny.py", name="tiny",
                        base=str(tiny_model), stages=stages)


@pytest.fixture(scope="session")
def guardjax():
    """`guardjax(*words)` runs the command and returns its exit status."""
    return lambda *words: main.main([str(word) for word in words])
