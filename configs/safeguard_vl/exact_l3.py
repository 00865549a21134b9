"""SafeGuard-VL in miniature: exact on one policy (ladder level L3)."""

import pathlib
import runpy

rows = runpy.run_path(str(pathlib.Path(__file__).with_name("rows.py")))


def get_config():
    """The row's config."""
    return rows["row"]("exact", "L3")
