"""SafeGuard-VL in miniature: describe the picture first, then the verdict; grpo on varied policies.

The base has never written a rationale. The first stage teaches its form in words alone (verdicts
on scenes that are told, not shown); the second is the row grpo_varied with room for a rationale.
"""

import pathlib
import runpy

rows = runpy.run_path(str(pathlib.Path(__file__).with_name("rows.py")))


def get_config():
    """The row's config."""
    config = rows["row"]("grpo", "varied")
    config.name = "think_grpo_varied"
    form, = rows["row"]("sft", "varied").stages
    form.name, form.think = "form", True
    form.data = {"read": 1.0}
    grpo, = config.stages
    grpo.rl.max_tokens = 32     # as many as a guard may write
    config.stages = (form, grpo)
    return config
