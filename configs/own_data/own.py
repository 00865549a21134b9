r"""A person's own pictures and policy: fine-tune the shipped base on them, then a page of numbers.

    guardjax train --config configs/own_data/own.py --out runs/own \
        dataset.dir=my_pictures dataset.policy=my_pictures/policy.yaml

`guardjax data check --format own my_pictures --policy ... --split all` looks at the pictures
first. See `guardjax/data/datasets/own.py` for what the folder may look like. SFT teaches the
verdicts and which rule is broken; GRPO then rewards right verdicts on the same pictures.
"""

import ml_collections

# As in configs/safeguard_vl: what the tower sees and the words it is told in stay as they are.
FREEZE = ("visual", "model/embed_tokens")


def get_config():
    """The run's config; paths and everything else can be changed on the command line."""
    config = ml_collections.ConfigDict()
    config.name = "own"
    config.base = "base"
    config.dataset = {"format": "own", "dir": "my_pictures", "policy": "my_pictures/policy.yaml",
                      "split": "train", "report": "test"}
    shared = {"batch": 16, "freeze": FREEZE, "data": {"judge": 1.0},
              "optim": {"lr": 1e-4, "warmup_steps": 10}}
    sft = {"kind": "sft", "steps": 100} | shared
    grpo = {"kind": "grpo", "steps": 50, "rl": {"max_tokens": 16, "temperature": 1.5}} | shared
    config.stages = (ml_collections.ConfigDict(sft), ml_collections.ConfigDict(grpo))
    return config
