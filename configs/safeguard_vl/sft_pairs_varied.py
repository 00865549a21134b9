"""A control beside SafeGuard-VL in miniature: the matched pairs of BP-Adapt without its hinges.

Beside sft_varied it shows what the pairs do, of which that row has edits too; beside
bp_adapt_varied what the hinges do.
"""

import pathlib
import runpy

rows = runpy.run_path(str(pathlib.Path(__file__).with_name("rows.py")))


def get_config():
    """The row's config."""
    config = rows["row"]("bp_adapt", "varied")
    config.name = "sft_pairs_varied"
    config.stages[0].hinge = {"own_coef": 0.0, "pair_coef": 0.0}
    return config
