"""The paper's rows at their own size: described, never made."""

import math

import jax
import pytest

from guardjax.cli.compose import model_config
from guardjax.cli.rows import load_row
from guardjax.models.init import param_shapes
from guardjax.models.releases import NUM_PARAMETERS
from guardjax.scale.plan import argument_bytes
from guardjax.scale.workload import Lengths, Workload
from guardjax.train.config import ConfigError, MeshConfig
from guardjax.train.sharding import make_mesh


def size(tree):
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def programs(row):
    run = load_row(row, 0)
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    cfg = model_config(run)
    return cfg, Workload(run, run.stages[0], cfg, Lengths(), mesh).programs()


@pytest.mark.slow
def test_full_tuning_carries_four_times_the_decoder():
    """Parameters, two moments and the reference, all float32; the frozen tower once."""
    cfg, (rollout, update) = programs("grpo_7b")
    shapes = param_shapes(cfg)
    assert size(shapes) == NUM_PARAMETERS["7B"]
    decoder, tower = size(shapes) - size(shapes["visual"]), size(shapes["visual"])
    assert argument_bytes(update) == pytest.approx(4 * (4 * decoder + tower), rel=1e-3)
    assert argument_bytes(rollout) == pytest.approx(4 * (decoder + tower), rel=2e-3)
    assert update.args[2]["tokens"].shape == (2, 8, 512)


def test_adapters_carry_little_more_than_the_model():
    cfg, (update,) = programs("sft_7b")
    text = cfg.text
    keys = text.num_key_value_heads * text.head_dim
    sides = (4 * text.hidden_size + 2 * (text.hidden_size + keys)
             + 3 * (text.hidden_size + text.intermediate_size))
    factors = 64 * text.num_hidden_layers * sides
    pictures = 64 * 4096 * 1176
    assert argument_bytes(update) == pytest.approx(
        4 * (NUM_PARAMETERS["7B"] + 3 * factors + pictures), rel=1e-3)


def test_a_release_that_is_not_there_cannot_be_trained():
    run = load_row("grpo_7b", 0, ["base=Qwen/Qwen2.5-VL-8B-Instruct"])
    with pytest.raises(ConfigError, match="no model folder, and no release such as"):
        model_config(run)
