"""SafeGuard-VL at its own size, stage 2: GRPO on all weights of the decoder (lr 1e-6, beta 0.01).

From the release itself: the paper's "RL only". For its "Full", `base` is the model of `sft_7b`.
"""

import pathlib
import runpy

paper = runpy.run_path(str(pathlib.Path(__file__).with_name("paper.py")))


def get_config():
    """The row's config: one pass over 4,571 prompts, 2 a step (16 completions)."""
    return paper["row"]("grpo_7b", {
        "kind": "grpo", "steps": 2285, "batch": 2, "data": {"judge": 1.0},
        "optim": {"lr": 1e-6, "warmup_steps": 23},
        "rl": {"preset": "grpo", "group_size": 8, "max_tokens": 512, "temperature": 1.0,
               "kl_coef": 0.01, "reward": "safeguard_vl_words"}})
