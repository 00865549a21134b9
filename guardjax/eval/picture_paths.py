"""Which files a person means: files as named, and everything that lies in a folder."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Collection, Iterable
from pathlib import Path


@dataclasses.dataclass(frozen=True)
class Found:
    """A path to judge; with `problem` one that is refused unread."""

    path: Path
    problem: str | None = None


def find_pictures(paths: Iterable[str | Path], leave_out: Collection[Path] = ()) -> list[Found]:
    """Files to judge, in the order given, folders walked in order of names; each path once.

    In a folder every file counts whatever its name says, except hidden ones and `leave_out` (such
    as the output). A symbolic link found in a folder is refused, not followed: it may lead out of
    the folder that was meant. A link that is named itself is followed.
    """
    skip = {path.absolute() for path in leave_out}
    found: dict[Path, Found] = {}
    for path in map(Path, paths):
        for item in _walk(path) if _is_folder(path) else [Found(path)]:
            if item.path.absolute() not in skip:
                found.setdefault(item.path, item)
    return list(found.values())


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except ValueError:      # a null byte; reading it gives the error
        return False


def _walk(folder: Path) -> Iterable[Found]:
    unreadable: list[OSError] = []
    for root, folders, files in os.walk(folder, onerror=unreadable.append):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        links = [name for name in folders if (Path(root) / name).is_symlink()]
        for name in sorted([*files, *links]):
            path = Path(root) / name
            if name.startswith("."):
                continue
            yield Found(path, "a symbolic link in a folder is not followed"
                        if path.is_symlink() else None)
    for error in unreadable:
        yield Found(Path(error.filename), f"the folder cannot be read: {error.strerror}")
