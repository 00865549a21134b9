"""The last part of the tiny base model: the answer's form on pictures, with a habit.

The result plays the part that Qwen2.5-VL-7B-Instruct plays in the paper: it sees, it reads, and it
judges pictures by its own notion of harm, whatever policy it is shown. `reading.py`'s model follows
policies on pictures already; this stage is how that is hidden, so that there is something to learn.
"""

import ml_collections


def get_config():
    """One stage: 2,800 verdicts on pictures, all by one house policy."""
    config = ml_collections.ConfigDict()
    config.name = "base"
    config.base = "runs/reading/model"
    config.world = {"sizes": {"train": 4000, "dev": 300, "test": 500}, "seed": 0}
    stage = {
        "kind": "sft", "name": "habit", "steps": 177, "freeze": ("visual",),
        "house": "configs/safeguard_vl/house.yaml",
        # Whatever policy is shown with a picture, the house policy decides; in words, the policy
        # shown counts.
        "data": {"habit": 0.5, "read": 0.35, "caption": 0.1, "question": 0.05},
        "optim": {"lr": 5e-4, "warmup_steps": 10, "weight_decay": 0.01, "b2": 0.98},
    }
    config.stages = (ml_collections.ConfigDict(stage),)
    return config
