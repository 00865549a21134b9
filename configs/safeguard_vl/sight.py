"""The first half of the tiny base model: a vision tower that names what each image token shows.

It is the slow half (6,000 steps, see experiments/safeguard_vl/README.md for the time) and has a run
of its own, so that the language half, `base.py`, can be made again without it.
"""

import ml_collections


def get_config():
    """One stage, from random weights and a tokenizer of our own."""
    config = ml_collections.ConfigDict()
    config.name = "sight"
    config.base = "scratch"
    config.stages = (
        ml_collections.ConfigDict({
            "kind": "sight", "name": "sight", "steps": 6000, "batch": 64,
            "optim": {"lr": 2e-3, "warmup_steps": 200, "weight_decay": 0.02, "b2": 0.98}}),
    )
    config.checkpoint = {"every_steps": 500}
    config.world = {"sizes": {"train": 100}}  # scenes of this stage are drawn, not stored
    return config
