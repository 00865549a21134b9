"""A run that hangs says where, and ends, instead of holding its machines for nothing."""

from __future__ import annotations

import faulthandler
import os
import pathlib
import sys
import threading
import time
from collections.abc import Callable

from guardjax.train.config import GuardConfig

HUNG = 75           # exit status: "temporary failure" of sysexits.h; the same command goes on
REPORT = "hang.txt"
_STDERR = 2         # the descriptor: a thread's traceback must not go through Python's objects


class HangWatchdog:
    """A thread that looks whether steps end; use it as a context manager.

    After `guard.hang_seconds` without one it prints what the loop was doing and where every thread
    stands, here and in `hang.txt` of the run's folder. After `guard.hang_exit_seconds` it does so
    again and ends the process with status 75: threads that hang cannot be asked to stop.
    """

    def __init__(self, config: GuardConfig, folder: pathlib.Path, where: Callable[[], str],
                 leave: Callable[[int], None] = os._exit) -> None:
        """`where` says what the loop is doing; it is called from the watchdog's thread."""
        self._first, self._last = config.hang_seconds, config.hang_exit_seconds
        self._folder, self._where, self._leave = folder, where, leave
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self._told = False
        self.step_done("before the first step")

    def __enter__(self) -> HangWatchdog:
        self.step_done("before the first step")
        if self._first or self._last:
            self._thread = threading.Thread(target=self._watch, name="hang watchdog", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()

    def step_done(self, what: str) -> None:
        """Something ended; `what` says which, such as "grpo, step 12"."""
        self._alive, self._newest, self._told = time.monotonic(), what, False

    def _watch(self) -> None:
        limits = [limit for limit in (self._first, self._last) if limit]
        while not self._stopped.wait(min(5.0, min(limits) / 10)):
            silent = time.monotonic() - self._alive
            if self._last and silent >= self._last:
                self._report(f"hung: no step has ended for {silent:.0f} s (guard.hang_exit_seconds"
                             f"={self._last:g}); ending the process with status {HUNG}. The same "
                             "command goes on from the newest checkpoint")
                self._leave(HUNG)
                return
            if self._first and silent >= self._first and not self._told:
                self._told = True
                end = (f"; the process is ended after {self._last:g} s" if self._last else "")
                self._report(f"no step has ended for {silent:.0f} s (guard.hang_seconds="
                             f"{self._first:g}){end}")

    def _report(self, what: str) -> None:
        text = f"guardjax: {what}. Newest: {self._newest}. Now in: {self._where()}.\n"
        os.write(_STDERR, text.encode())
        faulthandler.dump_traceback(_STDERR, all_threads=True)
        try:
            with open(self._folder / REPORT, "a", encoding="utf-8") as file:
                file.write(f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')} {text}")
                file.flush()
                faulthandler.dump_traceback(file, all_threads=True)
        except OSError as error:        # a full or vanished disk may be why it hangs
            print(f"guardjax: could not write {REPORT}: {error}", file=sys.stderr)
