"""SafeGuard-VL at its own size, stage 1: captions, by adapters (r 64, alpha 128, lr 1e-4)."""

import pathlib
import runpy

paper = runpy.run_path(str(pathlib.Path(__file__).with_name("paper.py")))


def get_config():
    """The row's config: one pass over 99,000 captions, 64 a step (8 GPUs, 8 steps gathered)."""
    return paper["row"]("sft_7b", {
        "kind": "sft", "steps": 1547, "batch": 64, "data": {"caption": 1.0},
        "lora": {"rank": 64, "alpha": 128.0},
        "optim": {"lr": 1e-4, "warmup_steps": 77, "weight_decay": 1e-3}})
