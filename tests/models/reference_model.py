"""The reference implementation, on the same seeded weights and rows. Needs torch."""

from __future__ import annotations

import numpy as np
import torch
import transformers

from guardjax.models.config import ModelConfig
from tests.models.reference_cases import IMAGE_ID, Row, seeded_tensor


def build(cfg: ModelConfig) -> transformers.Qwen2_5_VLForConditionalGeneration:
    """The reference model in float32 with the seeded weights."""
    hf_cfg = transformers.Qwen2_5_VLConfig(**cfg.to_hf())
    hf_cfg._attn_implementation = "eager"
    model = transformers.Qwen2_5_VLForConditionalGeneration(hf_cfg).eval().float()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            hub = name.replace("model.language_model.", "model.")
            hub = hub.replace("model.visual.", "visual.")
            parameter.copy_(torch.from_numpy(seeded_tensor(hub, tuple(parameter.shape))))
    return model


def run(model: transformers.Qwen2_5_VLForConditionalGeneration, row: Row,
        ) -> tuple[np.ndarray, np.ndarray]:
    """(logits [T, V], M-RoPE ids [T, 3]) of one row.

    `mm_token_type_ids` must be passed: without it the reference silently uses plain positions.
    """
    model.model.rope_deltas = None
    tokens = torch.from_numpy(row.tokens.astype(np.int64))[None]
    inputs = {"input_ids": tokens, "mm_token_type_ids": (tokens == IMAGE_ID).int()}
    if row.grids:
        inputs |= {"pixel_values": torch.from_numpy(row.patches),
                   "image_grid_thw": torch.tensor(row.grids)}
    with torch.no_grad():
        logits = model(**inputs, use_cache=False).logits[0].numpy()
    positions, _ = model.model.get_rope_index(
        tokens, mm_token_type_ids=inputs["mm_token_type_ids"],
        image_grid_thw=inputs.get("image_grid_thw"))
    return logits, positions[:, 0].T.numpy().astype(np.int32)


def load(folder) -> transformers.Qwen2_5_VLForConditionalGeneration:
    """The reference model from a directory; refuses missing and unused tensors."""
    model, report = transformers.Qwen2_5_VLForConditionalGeneration.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True)
    problems = {kind: names for kind, names in report.items() if names}
    if problems:
        raise ValueError(f"{folder} does not load cleanly: {problems}")
    return model.eval()
