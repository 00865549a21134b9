"""The second part of the tiny base model: reading, and sight in the words that are read.

It starts from `sight.py`'s model. No policy is shown with a picture here.
"""

import ml_collections


def get_config():
    """Four stages on one CPU core; see experiments/safeguard_vl/README.md for times."""
    config = ml_collections.ConfigDict()
    config.name = "reading"
    config.base = "runs/sight/model"
    config.world = {"sizes": {"train": 4000, "dev": 300, "test": 500}, "seed": 0}
    optim = {"warmup_steps": 50, "weight_decay": 0.01, "b2": 0.98}
    stages = (
        # Rule by rule first: a verdict alone is too thin a signal to learn reading from.
        {"kind": "sft", "name": "study", "steps": 1500, "freeze": ("visual",),
         "data": {"study": 1.0}, "plain_share": 0.5, "optim": {"lr": 2e-3} | optim},
        # Verdicts, captions and questions, all on scenes told in words.
        {"kind": "sft", "name": "words", "steps": 2000, "freeze": ("visual",), "spell_share": 0.3,
         "data": {"read": 0.6, "study": 0.15, "retell": 0.15, "ask": 0.1},
         "optim": {"lr": 1e-3} | optim},
        # The words have moved while they were learned: the tower follows them, and closely.
        {"kind": "sight", "name": "align", "steps": 500, "batch": 64, "closeness": 1.0,
         "optim": {"lr": 2e-3, "warmup_steps": 50, "weight_decay": 0.02, "b2": 0.98}},
        # Pictures at last: captions and questions.
        {"kind": "sft", "name": "look", "steps": 1200, "freeze": ("visual",),
         "data": {"caption": 0.35, "question": 0.25, "quiz": 0.15, "read": 0.15, "retell": 0.1},
         "optim": {"lr": 1e-3} | optim},
    )
    config.stages = tuple(ml_collections.ConfigDict(stage) for stage in stages)
    config.checkpoint = {"every_steps": 200}
    return config
