"""The families that can be read, a row each, by the `model_type` of their `config.json`.

The decoder is one, and the forward pass, sampling, losses and adapters know no family.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from guardjax.models.family import Family
from guardjax.models.hf_llava import read_llava, write_llava
from guardjax.models.hf_qwen import (QWEN2_5_FIXED, QWEN2_FIXED, read_qwen2_5_vl, read_qwen2_vl,
                                     write_qwen2_5_vl, write_qwen2_vl)
from guardjax.models.tower_config import ClipConfig, VisionConfig

_QWEN_TEXT = MappingProxyType({"attention_bias": True, "plain_positions": False})
_QWEN_MEMORY = (("model.", "model.language_model."), ("visual.", "model.visual."))

FAMILIES: Mapping[str, Family] = MappingProxyType({
    "qwen2_5_vl": Family(
        "Qwen2_5_VLForConditionalGeneration", VisionConfig, read_qwen2_5_vl, write_qwen2_5_vl,
        fixed=QWEN2_5_FIXED, fixed_text=_QWEN_TEXT, memory=_QWEN_MEMORY),
    "qwen2_vl": Family(
        "Qwen2VLForConditionalGeneration", VisionConfig, read_qwen2_vl, write_qwen2_vl,
        fixed=QWEN2_FIXED, fixed_text=_QWEN_TEXT, memory=_QWEN_MEMORY),
    "llava": Family(
        "LlavaForConditionalGeneration", ClipConfig, read_llava, write_llava,
        fixed_text=MappingProxyType({"plain_positions": True}),
        names=(("visual.projector.", "multi_modal_projector."),
               ("visual.", "vision_tower.vision_model."), ("model.", "language_model.model."),
               ("lm_head.", "language_model.lm_head.")),
        memory=(("vision_tower.vision_model.", "model.vision_tower."),
                ("multi_modal_projector.", "model.multi_modal_projector."),
                ("language_model.model.", "model.language_model."),
                ("language_model.lm_head.", "lm_head.")),
        # Transformers 4 kept `vision_model` in memory, and 5 leaves it out of files.
        aliases=tuple((start, "vision_tower.vision_model.") for start in (
            "model.vision_tower.vision_model.", "vision_tower.vision_model.", "vision_tower."))),
})
