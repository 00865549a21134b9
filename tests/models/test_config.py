"""Configs of both Hugging Face generations, and what is refused."""

import jax
import numpy as np
import pytest

from guardjax.models.config import ModelConfig
from guardjax.models.init import init_params
from guardjax.models.tiny import tiny_config
from tests.models.reference_cases import TIED, UNTIED
from guardjax.models.releases import RELEASES

RELEASE_7B = RELEASES["7B"]


def changed(**changes):
    return {**RELEASE_7B, **changes}


def test_release_7b_is_read():
    cfg = ModelConfig.from_hf(RELEASE_7B)
    assert cfg.text.mrope_section == (16, 24, 24) and cfg.text.head_dim == 128
    assert cfg.vision.window_units == 4 and cfg.vision.head_dim == 80
    assert cfg.vision.tokens_per_second == 2 and not cfg.tie_word_embeddings


@pytest.mark.parametrize(
    "cfg", [TIED, UNTIED, tiny_config(), *map(ModelConfig.from_hf, RELEASES.values())])
def test_there_and_back(cfg):
    assert ModelConfig.from_hf(cfg.to_hf()) == cfg
    assert hash(cfg) == hash(ModelConfig.from_hf(cfg.to_hf()))


def test_old_nested_tie_and_list_of_end_tokens():
    raw = TIED.to_hf()
    raw["tie_word_embeddings"] = False
    raw["text_config"]["eos_token_id"] = [1, 2]
    cfg = ModelConfig.from_hf(raw)
    assert cfg.tie_word_embeddings and cfg.text.eos_token_id == (1, 2)
    assert ModelConfig.from_hf(cfg.to_hf()) == cfg


@pytest.mark.parametrize(("raw", "message"), [
    (changed(model_type="llama"), "unknown architecture: model_type is 'llama'"),
    ({}, "unknown architecture: model_type is None"),
    (changed(vision_config=None), "no vision_config"),
    (changed(text_config=[1]), "text_config is .1.; it must be an object"),
    (changed(hidden_size=None), "no hidden_size in text_config"),
    (changed(vocab_size=2**40), "vocab_size in text_config is 1099511627776; it must be a whole"),
    (changed(num_hidden_layers="28"), "num_hidden_layers in text_config is '28'"),
    (changed(num_attention_heads=0), "num_attention_heads in text_config is 0"),
    (changed(vision_config={**RELEASE_7B["vision_config"], "depth": True}), "depth in vision_conf"),
    (changed(hidden_act="gelu"), "hidden_act 'gelu' is not implemented"),
    (changed(use_sliding_window=True), "use_sliding_window is not implemented"),
    (changed(rope_scaling={"type": "yarn", "mrope_section": [16, 24, 24]}), "rope type 'yarn'"),
    (changed(rope_scaling=None), "no mrope_section"),
    (changed(rope_scaling={"mrope_section": [16, 24, 25]}), "half the head size 128"),
    (changed(num_attention_heads=27), "does not divide into 27 heads"),
    (changed(num_key_value_heads=3), "28 query heads do not divide over 3"),
    (changed(hidden_size=7168), "out_hidden_size 3584 differs from text hidden_size 7168"),
    (changed(vision_config={**RELEASE_7B["vision_config"], "num_heads": 32}), None),
    (changed(vision_config={**RELEASE_7B["vision_config"], "num_heads": 18}), "2-D rotary"),
    (changed(vision_config={**RELEASE_7B["vision_config"], "window_size": 20}), "no merged unit"),
])
def test_what_cannot_be_computed_is_refused(raw, message):
    if message is None:
        ModelConfig.from_hf(raw)
        return
    if "7168" in message:
        raw = {**raw, "rope_scaling": {"mrope_section": [32, 48, 48]}}
    with pytest.raises(ValueError, match=message):
        ModelConfig.from_hf(raw)


def test_tiny_config_keeps_the_special_tokens_inside_the_vocabulary():
    cfg = tiny_config(vocab_size=600)
    assert cfg.video_token_id == 599 and cfg.text.eos_token_id == 588
    assert tiny_config(vocab_size=640, first_special_id=600).image_token_id == 612


def test_initial_values():
    params = init_params(TIED, jax.random.key(0))
    same = init_params(TIED, jax.random.key(0))
    other = init_params(TIED, jax.random.key(1))
    jax.tree.map(np.testing.assert_array_equal, params, same)
    layers = params["model"]["layers_0"], params["model"]["layers_1"]
    kernels = [layer["mlp"]["up_proj"]["kernel"] for layer in layers]
    assert not np.array_equal(*kernels)
    assert not np.array_equal(kernels[0], other["model"]["layers_0"]["mlp"]["up_proj"]["kernel"])
    assert abs(float(kernels[0].std()) - TIED.text.initializer_range) < 0.001
    assert (layers[0]["input_layernorm"]["scale"] == 1).all()
    assert not params["visual"]["blocks_0"]["attn"]["qkv"]["bias"].any()
