"""`config.json` of the four releases as they wrote it: flat, with `rope_scaling`, `in_chans`.

What a job of that size takes can be asked without the weights.
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
# Parameters as the hub counts them in the releases' own files.
NUM_PARAMETERS = {"3B": 3_754_622_976, "7B": 8_292_166_656, "32B": 33_452_718_336,
                  "72B": 73_410_777_344}


def release_of(name: str) -> str | None:
    """The size ("7B") of a release's name, with or without its owner, else None.

    `name` is such as "Qwen/Qwen2.5-VL-7B-Instruct", or the path of a folder that is called so.
    """
    last = name.rstrip("/").rsplit("/", 1)[-1]
    return next((size for size in RELEASES if last == f"Qwen2.5-VL-{size}-Instruct"), None)
