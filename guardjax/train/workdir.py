"""A run's folder belongs to one config; another config is refused, with the difference."""

from __future__ import annotations

import difflib
import os
import pathlib
from collections.abc import Sequence

from guardjax.train.disk import explain_full_disk

CONFIG_FILE = "config.txt"

# They change how a run is carried out, not what it computes.
MAY_DIFFER = ("checkpoint.", "mesh.")


class WorkdirError(RuntimeError):
    """The folder holds a run of another config."""


def open_workdir(path: str | os.PathLike[str], config_text: str, *,
                 may_differ: Sequence[str] = MAY_DIFFER) -> pathlib.Path:
    """Returns the folder, made if need be, with the resolved config kept in it.

    `config_text` is `config.to_text(run)`. Lines that start with one of `may_differ` may change
    from one start to the next.

    Raises:
      WorkdirError: if the folder was made by another config; the message holds a unified diff.
    """
    folder = pathlib.Path(path).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    kept = folder / CONFIG_FILE
    if kept.exists():
        old, new = (_fixed(text, may_differ) for text in (kept.read_text("utf-8"), config_text))
        if old != new:
            diff = "\n".join(difflib.unified_diff(old, new, str(kept), "this run", n=0,
                                                  lineterm=""))
            raise WorkdirError(f"{folder} holds a run of another config; choose another folder, "
                               f"or go back to the old config:\n{diff}")
    write_atomically(kept, config_text)
    return folder


def write_atomically(path: pathlib.Path, text: str) -> None:
    """Writes the file so that a crash or a full disk leaves either the old text or the new."""
    partial = path.with_name(path.name + ".partial")
    with explain_full_disk(path):
        with open(partial, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)


def _fixed(text: str, may_differ: Sequence[str]) -> list[str]:
    return [line for line in text.splitlines() if not line.startswith(tuple(may_differ))]
