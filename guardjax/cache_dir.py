"""Where things that can be made again are kept: worlds, sprites and compiled programs."""

from __future__ import annotations

import os
import pathlib


def cache_dir() -> pathlib.Path:
    """`$GUARDJAX_CACHE_DIR`, else `$XDG_CACHE_HOME/guardjax`, else `~/.cache/guardjax`.

    It need not exist; whoever writes into a folder of it makes that folder.
    """
    own = os.environ.get("GUARDJAX_CACHE_DIR")
    if own:
        return pathlib.Path(own).expanduser()
    return pathlib.Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "guardjax"
