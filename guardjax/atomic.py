"""Whole files or none: a reader never sees half a result, and a failed write loses nothing."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def write_text(path: str | Path, text: str) -> None:
    """Replaces the file at `path` by `text` in UTF-8, in one step; see `write_bytes`."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: str | Path, data: bytes) -> None:
    """Replaces the file at `path` by `data`, in one step.

    The data goes to a new file in the same folder, to disk, and only then into place. When that
    fails (full disk, no permission) the earlier file stays as it was. Raises `OSError`.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, new_mode(0o666))
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def new_mode(wanted: int) -> int:
    """`wanted` less what the user's umask takes: 0o666 for a file, 0o777 for a folder.

    `tempfile` makes private ones; a result should be as readable as any that a person makes.
    """
    mask = os.umask(0)
    os.umask(mask)
    return wanted & ~mask
