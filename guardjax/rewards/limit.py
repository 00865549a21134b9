"""Calls side by side, each within a time: a reward may ask a server, and a server may be silent."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

T = TypeVar("T")


class NoAnswer(Exception):
    """A call that did not return in time.

    Attributes:
      name: the call's name.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


def call_all(calls: Mapping[str, Callable[[], T]], seconds: float) -> dict[str, T]:
    """What each call returns, by name.

    Every call has a thread of its own, so that those which wait, wait together. One that is given
    up goes on in its thread, which does not keep the process from ending. With `seconds` 0 there
    is no limit, and they are called one after another in this thread: some functions (timeouts
    that use signals) work in the main thread only.

    Raises:
      NoAnswer: a call took longer than `seconds`.
      Exception: what the first call that failed, in order, raised.
    """
    if not seconds:
        return {name: call() for name, call in calls.items()}
    waiting = {name: _started(name, call) for name, call in calls.items()}
    end = time.monotonic() + seconds
    results = {}
    for name, future in waiting.items():
        done, _ = concurrent.futures.wait([future], timeout=max(0.0, end - time.monotonic()))
        if not done:
            raise NoAnswer(name)
        results[name] = future.result()
    return results


def finished(awaitable: Awaitable[T]) -> T:
    """The result of an awaitable, also in a thread that runs an event loop, as notebooks do."""
    async def wait() -> T:
        return await awaitable

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(wait())
    return _started("event loop", lambda: asyncio.run(wait())).result()


def _started(name: str, call: Callable[[], T]) -> concurrent.futures.Future[T]:
    future: concurrent.futures.Future[Any] = concurrent.futures.Future()

    def work() -> None:
        try:
            future.set_result(call())
        except BaseException as error:      # to the thread that waits, whatever it is
            future.set_exception(error)

    # No executor: its threads are waited for when the process ends.
    threading.Thread(target=work, name=name, daemon=True).start()
    return future
