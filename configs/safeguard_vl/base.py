"""The second half of the tiny base model: reading, and a small exposure to pictures.

It starts from `sight.py`'s model and plays the part that Qwen2.5-VL-7B-Instruct plays in the
paper: it sees and it reads, and it does not yet judge pictures by the policy.
"""

import ml_collections


def get_config():
    """Four stages on one CPU core; see experiments/safeguard_vl/README.md for times."""
    config = ml_collections.ConfigDict()
    config.name = "base"
    config.base = "runs/sight/model"
    config.world = {"sizes": {"train": 4000, "dev": 300, "test": 500}, "seed": 0}
    optim = {"warmup_steps": 50, "weight_decay": 0.01, "b2": 0.98}
    stages = (
        # Rule by rule first: a verdict alone is too thin a signal to learn reading from.
        {"kind": "sft", "name": "study", "steps": 1500, "freeze": ("visual",),
         "data": {"study": 1.0}, "plain_share": 0.5, "optim": {"lr": 2e-3} | optim},
        # Verdicts, captions and questions, all on scenes told in words.
        {"kind": "sft", "name": "words", "steps": 1000, "freeze": ("visual",), "spell_share": 0.2,
         "data": {"read": 0.5, "study": 0.3, "retell": 0.1, "ask": 0.1},
         "optim": {"lr": 1e-3} | optim},
        # The words have moved while they were learned: the tower follows them.
        {"kind": "sight", "name": "align", "steps": 300, "batch": 64,
         "optim": {"lr": 2e-3, "warmup_steps": 50, "weight_decay": 0.02, "b2": 0.98}},
        # Pictures: captions and questions, and one batch in twenty of verdicts for their form.
        {"kind": "sft", "name": "form", "steps": 400, "freeze": ("visual",),
         "data": {"caption": 0.4, "question": 0.2, "read": 0.35, "judge": 0.05},
         "optim": {"lr": 5e-4} | optim},
    )
    config.stages = tuple(ml_collections.ConfigDict(stage) for stage in stages)
    config.checkpoint = {"every_steps": 200}
    return config
