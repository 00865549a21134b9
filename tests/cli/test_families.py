"""Commands on directories of other families: Qwen2-VL judges, LLaVA is verified and refused."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest
from PIL import Image

import guardjax.models as models
from guardjax.cli import compose
from guardjax.cli.model_folder import save_model
from guardjax.data.batching import load_batcher
from guardjax.eval.guard import weights_hash
from guardjax.models.config import ClipConfig
from guardjax.policies import Policy, Rule, save_policy


@pytest.fixture(name="qwen2_vl", scope="module")
def _qwen2_vl(tiny_model, tmp_path_factory):
    """A directory as a release has it: config, weights, tokenizer, processor."""
    cfg, _ = models.load_hf(tiny_model)
    cfg = dataclasses.replace(cfg, family="qwen2_vl", vision=dataclasses.replace(
        cfg.vision, norm="layer", mlp="quick_gelu", window_size=None, fullatt_block_indexes=(),
        tokens_per_second=None))
    folder = tmp_path_factory.mktemp("qwen2_vl") / "model"
    return save_model(cfg, models.init_params(cfg, jax.random.key(0)),
                      load_batcher(compose.model_dir("base")), folder)


def test_qwen2_vl_judges(guardjax, qwen2_vl, tmp_path):
    assert load_batcher(qwen2_vl).window_units == 1     # no slot is padding
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (64, 90, 3), np.uint8)).save(tmp_path / "a.png")
    policy = Policy("mine", "1", "Mine", rules=(Rule("R1", wordings=("do not show weapons",)),))
    save_policy(policy, tmp_path / "p.yaml")
    status = guardjax("judge", tmp_path / "a.png", "--policy", tmp_path / "p.yaml", "--model",
                      qwen2_vl, "--out", tmp_path / "out.jsonl")
    (record,) = map(json.loads, (tmp_path / "out.jsonl").read_text().splitlines())
    assert record["model_hash"] == weights_hash(qwen2_vl)
    assert not record["status"].startswith("error")     # an untrained model may say anything
    assert status == (1 if record["decision"] == "needs_review" else 0)


def test_qwen2_vl_is_exported_with_its_own_card(guardjax, qwen2_vl, tmp_path):
    assert guardjax("export", qwen2_vl, "--out", tmp_path / "out") == 0
    card = (tmp_path / "out" / "README.md").read_text()
    assert "Qwen2VLForConditionalGeneration" in card and "qwen2_vl" in card
    assert "no windows" in card
    assert weights_hash(tmp_path / "out") == weights_hash(qwen2_vl)


def test_llava_is_verified_and_no_prompts_are_made_for_it(guardjax, qwen2_vl, tmp_path, capsys):
    cfg, _ = models.load_hf(qwen2_vl)
    head = cfg.text.head_dim
    cfg = dataclasses.replace(
        cfg, family="llava", video_token_id=None, vision_start_token_id=None,
        vision_end_token_id=None, vision=ClipConfig(2, 16, 16, 1, 16, image_size=16, patch_size=8,
                                                    feature_blocks=1),
        text=dataclasses.replace(cfg.text, mrope_section=(head // 2, 0, 0), attention_bias=False))
    models.save_hf(models.init_params(cfg, jax.random.key(0)), cfg, tmp_path / "llava")
    for file in ("tokenizer.json", "tokenizer_config.json", "preprocessor_config.json"):
        shutil.copyfile(qwen2_vl / file, tmp_path / "llava" / file)
    assert guardjax("verify", tmp_path / "llava") == 0
    assert "no prompts are made for llava" in capsys.readouterr().out
    assert guardjax("export", tmp_path / "llava", "--out", tmp_path / "out") == 2
    assert "prompts can be made for qwen2_5_vl and qwen2_vl only" in capsys.readouterr().err
