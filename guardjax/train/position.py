"""One position in the data for all processes of a run, however many there are.

Every process steps through the same batches and makes its rows of each (`data/sources.py`), so
their iterators are always at one position. grain would write a file a process, named by their
number, and a run could go on with that number only. Here process 0 writes the one file that a run
of one process has, and all read it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable
from typing import Any

from guardjax.train import hosts

_FILE = "process_0-of-1.json"       # grain's own name in a run of one process


class OnePosition:
    """A grain iterator as Orbax sees it: `save` and `load`, see `grain.DatasetIterator`."""

    def __init__(self, iterator: Any) -> None:
        self._iterator = iterator

    async def save(self, directory: Any) -> Awaitable[None]:
        """Writes the position as it is now; the files are made by what is returned."""
        state = json.dumps(self._iterator.get_state(), indent=4)

        async def write() -> None:
            folder = await directory.await_creation()
            if hosts.is_first():
                await asyncio.to_thread((folder / _FILE).write_text, state)

        return write()

    async def load(self, directory: Any) -> Awaitable[None]:
        """Sets the iterator to the position that was saved."""
        async def read() -> None:
            self._iterator.set_state(json.loads(await asyncio.to_thread(
                (directory / _FILE).read_text)))

        return read()


def one_position(iterator: Any) -> Any:
    """What Orbax is to save of a data iterator: grain's own way in a run of one process."""
    return iterator if hosts.num_processes() == 1 else OnePosition(iterator)
