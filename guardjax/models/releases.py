"""`config.json` of releases as they wrote it: what a job of that size takes, without the weights.

Qwen's are flat, with `rope_scaling` and `in_chans`; LLaVA's leave out transformers' defaults.
"""

from __future__ import annotations

from typing import Any

_IDS = {"bos_token_id": 151643, "eos_token_id": 151645, "image_token_id": 151655,
        "video_token_id": 151656, "vision_start_token_id": 151652, "vision_end_token_id": 151653}


def _release(width: int, mlp: int, layers: int, heads: int, groups: int, vocab: int,
             vision_mlp: int, tied: bool = False) -> dict[str, Any]:
    return {
        "architectures": ["Qwen2_5_VLForConditionalGeneration"], "model_type": "qwen2_5_vl",
        "hidden_act": "silu", "hidden_size": width, "intermediate_size": mlp,
        "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": groups,
        "vocab_size": vocab, "rms_norm_eps": 1e-06, "rope_theta": 1000000.0,
        "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
        "use_sliding_window": False, "tie_word_embeddings": tied, **_IDS,
        "max_position_embeddings": 128000, "initializer_range": 0.02, "torch_dtype": "bfloat16",
        "vision_config": {
            "depth": 32, "hidden_act": "silu", "hidden_size": 1280,
            "intermediate_size": vision_mlp, "num_heads": 16, "in_chans": 3,
            "out_hidden_size": width, "patch_size": 14, "spatial_merge_size": 2,
            "spatial_patch_size": 14, "window_size": 112,
            "fullatt_block_indexes": [7, 15, 23, 31], "tokens_per_second": 2,
            "temporal_patch_size": 2},
    }


RELEASES = {
    "3B": _release(2048, 11008, 36, 16, 2, 151936, 3420, tied=True),
    "7B": _release(3584, 18944, 28, 28, 4, 152064, 3420),
    "32B": _release(5120, 27648, 64, 40, 8, 152064, 3456),
    "72B": _release(8192, 29568, 80, 64, 8, 152064, 3456),
}


def _qwen2_vl(width: int, mlp: int, layers: int, heads: int, groups: int, vocab: int,
              tied: bool = False) -> dict[str, Any]:
    raw = _release(width, mlp, layers, heads, groups, vocab, 0, tied)
    return raw | {
        "architectures": ["Qwen2VLForConditionalGeneration"], "model_type": "qwen2_vl",
        "max_position_embeddings": 32768,
        "vision_config": {
            "depth": 32, "embed_dim": 1280, "mlp_ratio": 4, "num_heads": 16, "in_chans": 3,
            "hidden_size": width, "patch_size": 14, "spatial_merge_size": 2,
            "spatial_patch_size": 14, "temporal_patch_size": 2},
    }


_LLAVA = {"architectures": ["LlavaForConditionalGeneration"], "model_type": "llava",
          "ignore_index": -100, "projector_hidden_act": "gelu"}
_CLIP = {"model_type": "clip_vision_model", "hidden_size": 1024, "intermediate_size": 4096,
         "image_size": 336, "num_attention_heads": 16, "num_hidden_layers": 24, "patch_size": 14,
         "projection_dim": 768, "vocab_size": 32000}
_SIGLIP = {"model_type": "siglip_vision_model", "hidden_size": 1152, "intermediate_size": 4304,
           "image_size": 384, "num_attention_heads": 16, "num_hidden_layers": 26, "patch_size": 14,
           "vision_use_head": False}

# Of other families. The last has the parts of LLaVA-interleave's: SigLIP, a Qwen2 decoder.
FAMILY_RELEASES = {
    "Qwen2-VL 2B": _qwen2_vl(1536, 8960, 28, 12, 2, 151936, tied=True),
    "Qwen2-VL 7B": _qwen2_vl(3584, 18944, 28, 28, 4, 152064),
    "Qwen2-VL 72B": _qwen2_vl(8192, 29568, 80, 64, 8, 152064),
    "LLaVA 1.5 7B": _LLAVA | {
        "image_token_index": 32000, "pad_token_id": 32001, "vision_config": _CLIP,
        "vision_feature_layer": -2, "vision_feature_select_strategy": "default",
        "text_config": {"model_type": "llama", "vocab_size": 32064, "rms_norm_eps": 1e-05,
                        "max_position_embeddings": 4096, "torch_dtype": "float16"}},
    "LLaVA SigLIP 0.5B": _LLAVA | {
        "image_token_index": 151646, "vision_config": _SIGLIP, "vision_feature_layer": -1,
        "vision_feature_select_strategy": "full",
        "text_config": {"model_type": "qwen2", "vocab_size": 152000, "hidden_size": 1024,
                        "intermediate_size": 2816, "num_hidden_layers": 24,
                        "num_attention_heads": 16, "num_key_value_heads": 16,
                        "rope_theta": 1000000.0, "tie_word_embeddings": True,
                        "bos_token_id": 151643, "eos_token_id": 151645}},
}

# Parameters as the hub counts them in the releases' own files; the last as transformers does.
NUM_PARAMETERS = {
    "3B": 3_754_622_976, "7B": 8_292_166_656, "32B": 33_452_718_336, "72B": 73_410_777_344,
    "Qwen2-VL 2B": 2_208_985_600, "Qwen2-VL 7B": 8_291_375_616, "Qwen2-VL 72B": 73_405_560_320,
    "LLaVA 1.5 7B": 7_063_427_072, "LLaVA SigLIP 0.5B": 864_031_264}


def release_of(name: str) -> str | None:
    """The size ("7B") of a release's name, with or without its owner, else None.

    `name` is such as "Qwen/Qwen2.5-VL-7B-Instruct", or the path of a folder that is called so.
    """
    last = name.rstrip("/").rsplit("/", 1)[-1]
    return next((size for size in RELEASES if last == f"Qwen2.5-VL-{size}-Instruct"), None)
