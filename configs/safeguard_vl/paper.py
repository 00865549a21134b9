"""What the paper's two stages share at the paper's size (arXiv 2603.01228, its released scripts).

Over the policy world of this repository: the paper's pictures cannot be had. Ask whether a slice
holds a row before it is paid for: `guardjax aot --config grpo_7b --topology v5p:2x2x2`.
"""

from __future__ import annotations

import ml_collections


def row(name: str, stage: dict) -> ml_collections.ConfigDict:
    """One stage on Qwen2.5-VL-7B in bf16, its layers in a loop and computed again in the backward
    pass; the tower and its merger are frozen, as the paper's framework does by default.

    Args:
      name: of the row.
      stage: fields of `StageConfig`.
    """
    config = ml_collections.ConfigDict()
    config.name = name
    config.base = "Qwen/Qwen2.5-VL-7B-Instruct"
    config.dtype = "bfloat16"
    config.memory = {"scan_layers": True, "remat": "full"}
    config.world = {"sizes": {"train": 2000, "test": 500}, "seed": 0}
    config.stages = (ml_collections.ConfigDict({"freeze": ("visual",), **stage}),)
    return config
