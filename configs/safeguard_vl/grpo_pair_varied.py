"""A control beside SafeGuard-VL in miniature: grpo on varied policies by the rival's pair reward.

The reward is PolicyShiftGuard's (arXiv 2607.05910), see `rewards/compat_policy_shift.py`; nothing
else differs from the row grpo_varied.
"""

import pathlib
import runpy

rows = runpy.run_path(str(pathlib.Path(__file__).with_name("rows.py")))


def get_config():
    """The row's config."""
    config = rows["row"]("grpo", "varied")
    config.name = "grpo_pair_varied"
    config.stages[0].rl.reward = "policy_shift"
    return config
