"""A full disk, told apart from other failures and said in plain words."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator


class DiskFullError(RuntimeError):
    """Something could not be written because the disk, or the user's quota, is full."""


def is_full_disk(error: BaseException | None) -> bool:
    """Whether a full disk is behind the error: Python's own, or one of a C++ storage layer."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if "No space left on device" in str(error) or "Disk quota exceeded" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


@contextlib.contextmanager
def explain_full_disk(path: str | os.PathLike[str]) -> Iterator[None]:
    """Raises `DiskFullError` in place of the system's error while `path` is written."""
    try:
        yield
    except OSError as error:
        if not is_full_disk(error):
            raise
        raise DiskFullError(f"the disk is full: could not write {os.fspath(path)}. Free some "
                            "space and start again: the run goes on from its newest "
                            "checkpoint.") from error
