"""What the rows of the SafeGuard-VL experiment share. A row changes one thing at a time."""

from __future__ import annotations

import ml_collections

# Labels a row sees, in batches. Tuned on dev with GRPO, two seeds: PSS 83 at 100, 91 at 200.
STEPS = 200
BATCH = 32
# The words stay where they are: a tower that is frozen would no longer fit them, and captions and
# questions, which no row trains, would be forgotten.
FREEZE = ("visual", "model/embed_tokens")
# One rate for every algorithm, so that the algorithm alone differs. Tuned on dev: larger ones (2e-4
# for GRPO, 5e-4 for SFT) forget captions and follow policies no better.
LR = 1e-4


def row(kind: str, policies: str, **optim: float) -> ml_collections.ConfigDict:
    """One algorithm on one choice of policies, from the shipped base.

    Args:
      kind: "sft", "bp_adapt", "exact" or "grpo".
      policies: "varied", or a ladder level such as "L3".
      **optim: fields of `OptimConfig` that differ.
    """
    config = ml_collections.ConfigDict()
    config.name = f"{kind}_{policies.lower()}"
    config.base = "base"
    config.world = {"sizes": {"train": 2000, "test": 500}, "seed": 0}
    stage = {
        "kind": kind, "name": kind, "steps": STEPS, "batch": BATCH, "policies": policies,
        "data": {"judge": 1.0}, "freeze": FREEZE,
        "optim": {"lr": LR, "warmup_steps": 10, "clip_norm": 1.0} | optim,
    }
    if kind == "grpo":
        # A fifth of the prompts are captions and questions, without their answers: k3 holds what
        # is said to them to the base, and a quarter more steps make the labels equal again.
        stage["steps"] = STEPS * 5 // 4
        stage["data"] = {"judge": 0.8, "caption": 0.14, "question": 0.06}
        # A base that is sure of its verdict gives groups without signal: sampled at 1.5, half of
        # them differ. The preset has no group std (it lifts nearly unanimous groups) and k3 to the
        # base; its fields are not repeated, so that `stages.0.rl.preset=gspo` is all of GSPO.
        stage["rl"] = {"preset": "default", "group_size": 8, "max_tokens": 12, "temperature": 1.5,
                       "entropy_coef": 0.005, "anchor_coef": 3.0}
    config.stages = (ml_collections.ConfigDict(stage),)
    return config
