"""SafeGuard-VL in miniature: the paper's Full, descriptions first, then grpo on varied policies.

The first stage is SFT on captions and questions, which hold no verdict; the second is the row
grpo_varied as it stands.
"""

import pathlib
import runpy

rows = runpy.run_path(str(pathlib.Path(__file__).with_name("rows.py")))


def get_config():
    """The row's config."""
    config = rows["row"]("grpo", "varied")
    config.name = "describe_grpo_varied"
    describe, = rows["row"]("sft", "varied").stages
    describe.name = "describe"
    describe.data = {"caption": 0.5, "question": 0.5}
    config.stages = (describe, *config.stages)
    return config
