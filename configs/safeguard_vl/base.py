"""The tiny base model, from nothing: sight, then words, then a small exposure to the answer form.

It plays the part that Qwen2.5-VL-7B-Instruct plays in the paper.
"""

import ml_collections


def get_config():
    """Three stages on one CPU; see experiments/safeguard_vl/README.md for times."""
    config = ml_collections.ConfigDict()
    config.name = "base"
    config.base = "scratch"
    config.world = {"sizes": {"train": 4000, "dev": 300, "test": 500}, "seed": 0}
    optim = {"warmup_steps": 100, "weight_decay": 0.01}
    config.stages = (
        ml_collections.ConfigDict({
            "kind": "sight", "name": "sight", "steps": 6000, "batch": 64,
            "optim": {"lr": 2e-3, "warmup_steps": 200, "weight_decay": 0.02, "b2": 0.98}}),
        ml_collections.ConfigDict({
            "kind": "sft", "name": "words", "steps": 2400, "batch": 32, "freeze": ("visual",),
            "data": {"read": 0.7, "caption": 0.15, "question": 0.15},
            "optim": {"lr": 2e-3} | optim}),
        ml_collections.ConfigDict({
            "kind": "sft", "name": "form", "steps": 1500, "batch": 64, "freeze": ("visual",),
            "data": {"caption": 0.35, "question": 0.15, "read": 0.3, "judge": 0.2},
            "optim": {"lr": 1.5e-3, "warmup_steps": 50, "weight_decay": 0.01}}),
    )
    config.checkpoint = {"every_steps": 500}
    return config
