"""A save that goes on beside the loop, and Orbax's own log, silent until the save's end."""

from __future__ import annotations

import contextlib
import logging
import pathlib
import shutil
import time
from collections.abc import Iterator
from typing import Any

_TRIES, _PAUSE = 50, 0.1        # seconds


@contextlib.contextmanager
def unlogged() -> Iterator[None]:
    """Orbax logs a traceback from each of its threads for a failure that it raises as well."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(level)


def remove_written(folder: pathlib.Path) -> None:
    """Removes what a failed save has left, though some of its threads may still be writing."""
    for _ in range(_TRIES):
        shutil.rmtree(folder, ignore_errors=True)
        time.sleep(_PAUSE)
        if not folder.exists():
            break


class SaveUnderWay:
    """The save of a step. `quiet` is to be closed when it is over."""

    def __init__(self, step: int, response: Any) -> None:
        """`response` is Orbax's."""
        self.step, self._response = step, response
        self.quiet = contextlib.ExitStack()
        self.quiet.enter_context(unlogged())

    def wait(self) -> None:
        """Returns when the files are there. Raises what Orbax raises."""
        self._response.result()
