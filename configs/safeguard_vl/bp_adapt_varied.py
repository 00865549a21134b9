"""A control beside SafeGuard-VL in miniature: BP-Adapt (PolicyShiftGuard) on varied policies.

Hinge losses on pairs of one picture under a policy that passes it and one that blocks it, with the
weights of arXiv 2607.05910. Labels, batch and rate are those of sft_varied; `sft_pairs_varied` has
the pairs without the hinges. The authors' first stage, RP-SFT (cross-entropy on random policies in
random words), is the row sft_varied.
"""

import pathlib
import runpy

rows = runpy.run_path(str(pathlib.Path(__file__).with_name("rows.py")))


def get_config():
    """The row's config."""
    return rows["row"]("bp_adapt", "varied")
