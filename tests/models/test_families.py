"""Families beside Qwen2.5-VL: their files, both ways, and what is refused.

That they compute what the reference does is in `test_parity_shapes.py`.
"""

import copy
import dataclasses
import json
import pathlib

import jax
import numpy as np
import pytest

from guardjax.models.certificate import certify, differences
from guardjax.models.config import ClipConfig, ModelConfig
from guardjax.models.hf_names import hub_name, leaf_shape, leaf_table, tensor_table
from guardjax.models.hf_weights import SINGLE_FILE, load_hf, save_hf
from guardjax.models.probes import make_probes
from guardjax.models.releases import FAMILY_RELEASES
from tests.models import parity_port as port
from tests.models.parity_cases import FAMILY_SHAPES, make_rows, random_tensor
from tests.models.parity_errors import LOGITS_BAR, relative_error
from tests.models.reference_cases import TIED
from tests.models.test_parity_shapes import our_logits

SAVED = pathlib.Path(__file__).parents[1] / "golden" / "models" / "saved_families.json"
QWEN, LLAVA, SIGLIP = (FAMILY_RELEASES[name] for name in (
    "Qwen2-VL 7B", "LLaVA 1.5 7B", "LLaVA SigLIP 0.5B"))


def changed(raw, **changes):
    """A copy of a config; `__` in a name stands for a section."""
    raw = copy.deepcopy(raw)
    for name, value in changes.items():
        *sections, key = name.split("__")
        target = raw
        for section in sections:
            target = target[section]
        target[key] = value
    return raw


def test_qwen2_vl_is_read():
    cfg = ModelConfig.from_hf(QWEN)
    vision = cfg.vision
    assert (vision.hidden_size, vision.intermediate_size, vision.out_hidden_size) == (
        1280, 5120, 3584)
    assert (vision.window_units, vision.full_blocks) == (1, tuple(range(32)))
    assert vision.video_step(0.7) == 1.0 and cfg.architecture == "Qwen2VLForConditionalGeneration"


def test_llava_is_read_with_what_its_files_leave_out():
    cfg = ModelConfig.from_hf(LLAVA)
    text = cfg.text
    assert (text.hidden_size, text.num_hidden_layers, text.rope_theta) == (4096, 32, 10000.0)
    assert text.plain_positions and not text.attention_bias and text.eos_token_id == 2
    assert (cfg.vision.feature_blocks, cfg.vision.depth, cfg.vision.window_units) == (23, 24, 24)
    assert cfg.image_token_id == 32000 and cfg.video_token_id is None
    other = ModelConfig.from_hf(SIGLIP)
    assert other.text.attention_bias and other.tie_word_embeddings
    assert (other.vision.style, other.vision.feature_blocks, other.vision.window_units) == (
        "siglip", 26, 27)


@pytest.mark.parametrize("name", FAMILY_RELEASES)
def test_configs_there_and_back(name):
    cfg = ModelConfig.from_hf(FAMILY_RELEASES[name])
    assert ModelConfig.from_hf(json.loads(json.dumps(cfg.to_hf()))) == cfg


@pytest.mark.parametrize(("raw", "message"), [
    (changed(QWEN, model_type="llava_onevision"),
     "'llava_onevision'; what can be read is 'qwen2_5_vl' or 'qwen2_vl' or 'llava'"),
    (changed(QWEN, model_type=["llava"]), "model_type is .'llava'."),
    (changed(QWEN, vision_config__embed_dim=None), "no embed_dim in vision_config"),
    (changed(QWEN, vision_config__mlp_ratio=3.5), "mlp_ratio in vision_config is 3.5"),
    (changed(QWEN, vision_config__hidden_act="gelu"), "hidden_act 'gelu' is not implemented"),
    (changed(QWEN, vision_config__hidden_size=99), "out_hidden_size 99 differs from text"),
    (changed(LLAVA, vision_config=None), "no vision_config"),
    (changed(LLAVA, vision_config__model_type="vit"), "model_type 'vit' of vision_config is not"),
    (changed(LLAVA, text_config__model_type="mistral"), "'mistral' of text_config is not"),
    (changed(LLAVA, vision_feature_layer=[-2, -5]), "vision_feature_layer .-2, -5. is not"),
    (changed(LLAVA, vision_feature_layer=-25), "vision_feature_layer -25 is not"),
    (changed(LLAVA, vision_feature_select_strategy="full"), "'full' is not implemented for a clip"),
    (changed(LLAVA, projector_hidden_act="relu"), "projector_hidden_act 'relu' is not"),
    (changed(LLAVA, multimodal_projector_bias=False), "multimodal_projector_bias False is not"),
    (changed(LLAVA, text_config__rope_scaling={"type": "linear"}), "rope type 'linear'"),
    (changed(LLAVA, text_config__attention_bias=True), "attention_bias True is not"),
    (changed(LLAVA, text_config__head_dim=64), "head_dim 64 is not implemented, only 128"),
    (changed(LLAVA, text_config__hidden_size="4096"), "hidden_size is '4096'"),
    (changed(LLAVA, vision_config__num_hidden_layers=None), "num_hidden_layers is None"),
    (changed(LLAVA, vision_config__patch_size=400), "image_size 336 holds no patch of 400"),
    (changed(LLAVA, vision_config__num_attention_heads=15), "does not divide into 15 heads"),
    (changed(LLAVA, vision_config__hidden_act="relu"), "hidden_act 'relu' is not implemented"),
    (changed(SIGLIP, vision_config__vision_use_head=True), "vision_use_head is not implemented"),
])
def test_what_cannot_be_computed_is_refused(raw, message):
    with pytest.raises(ValueError, match=message):
        ModelConfig.from_hf(raw)


@pytest.mark.parametrize(("changes", "message"), [
    ({"family": "llava"}, "vision is a VisionConfig; in a model of family llava it must be a Clip"),
    ({"family": "qwen2_vl"}, "norm is 'rms'; in a model of family qwen2_vl it must be 'layer'"),
    ({"family": "qwen3"}, "family is 'qwen3'; it must be one of qwen2_5_vl, qwen2_vl, llava"),
    ({"text": dataclasses.replace(TIED.text, attention_bias=False)}, "attention_bias is False")])
def test_a_family_has_what_its_code_fixes(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(TIED, **changes)


def test_positions_belong_to_the_family():
    cfg = FAMILY_SHAPES["LLaVA 1.5 7B"]
    text = dataclasses.replace(cfg.text, mrope_section=(2, 3, 3))
    with pytest.raises(ValueError, match="plain_positions is False; in a model of family llava"):
        dataclasses.replace(cfg, text=text)


def test_a_width_that_no_file_can_say_is_refused():
    cfg = FAMILY_SHAPES["Qwen2-VL 2B"]
    odd = dataclasses.replace(cfg.vision, intermediate_size=321)
    with pytest.raises(ValueError, match="intermediate_size 321 must be a multiple"):
        dataclasses.replace(cfg, vision=odd).to_hf()


@pytest.mark.parametrize("shape", FAMILY_SHAPES)
def test_what_the_reference_saved_is_read(shape):
    cfg = FAMILY_SHAPES[shape]
    stored = json.loads(SAVED.read_text(encoding="utf-8"))["models"][shape]
    assert ModelConfig.from_hf(stored["config"]) == cfg
    names = {hub_name(cfg, name) for name in stored["index"]["weight_map"]}
    assert names == {spec.name for spec in tensor_table(cfg)}


@pytest.mark.parametrize("shape", FAMILY_SHAPES)
def test_import_export_import_is_the_same_to_the_byte(shape, tmp_path):
    cfg = FAMILY_SHAPES[shape]
    save_hf(port.make_params(cfg), cfg, tmp_path / "first")
    found, params = load_hf(tmp_path / "first")
    assert found == cfg
    save_hf(params, found, tmp_path / "second")
    for name in ("config.json", SINGLE_FILE):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()
    jax.tree.map(np.testing.assert_array_equal, params, port.make_params(cfg))


def test_equal_blocks_are_stacked_where_there_are_no_windows():
    cfg = dataclasses.replace(FAMILY_SHAPES["Qwen2-VL 2B"], scan_layers=True)
    table = leaf_table(cfg)
    name = ("visual", "blocks", "full", "mlp", "fc1", "kernel")
    assert leaf_shape(table[name]) == (cfg.vision.depth, cfg.vision.hidden_size,
                                       cfg.vision.intermediate_size)


@pytest.mark.parametrize("shape", FAMILY_SHAPES)
def test_probes_fit_every_family(shape):
    cfg = FAMILY_SHAPES[shape]
    merge, patches = cfg.vision.spatial_merge_size, cfg.vision.window_patches
    for probe in make_probes(cfg):
        units = sum(t * h * w for t, h, w in probe.grids) // merge**2
        assert (probe.tokens == cfg.image_token_id).sum() == units
        assert 0 <= probe.tokens.min() and probe.tokens.max() < cfg.text.vocab_size
        if isinstance(cfg.vision, ClipConfig):
            assert units % patches == 0


@pytest.mark.parametrize("shape", FAMILY_SHAPES)
def test_live_what_we_save_has_our_logits_there(shape, tmp_path, live):
    from tests.models import reference_model

    cfg = FAMILY_SHAPES[shape]
    save_hf(port.make_params(cfg), cfg, tmp_path / "model")
    model = reference_model.load(tmp_path / "model")
    rows = make_rows(cfg)
    for ours, row in zip(our_logits(shape), rows):
        assert relative_error(ours, reference_model.run(model, row)[0]) <= LOGITS_BAR


@pytest.mark.parametrize("shape", FAMILY_SHAPES)
def test_live_what_the_reference_saves_is_ours(shape, tmp_path, live):
    from tests.models import reference_model

    cfg = FAMILY_SHAPES[shape]
    reference_model.build(cfg, random_tensor).save_pretrained(tmp_path, max_shard_size="60KB")
    found, params = load_hf(tmp_path)
    assert found == cfg
    jax.tree.map(np.testing.assert_array_equal, params, port.make_params(cfg))


def test_live_certificate_of_llava(tmp_path, live):
    """However it is stored; and the reference answers its probes alike."""
    from guardjax.cli.reference import reference_logits
    from tests.models import reference_model

    cfg = FAMILY_SHAPES["LLaVA 1.5 7B"]
    save_hf(port.make_params(cfg), cfg, tmp_path / "ours")
    reference_model.build(cfg, random_tensor).save_pretrained(tmp_path / "theirs")
    found, _, logits = certify(tmp_path / "ours")
    other, _, _ = certify(tmp_path / "theirs")
    assert differences(found, other) == []
    _, reference = reference_logits(tmp_path / "ours", cfg, make_probes(cfg))
    for name, theirs in reference.items():
        assert relative_error(logits[name], theirs) <= LOGITS_BAR, name
