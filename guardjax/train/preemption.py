"""Being asked to stop: finish the step, save, leave."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any


class Preempted(SystemExit):
    """The run was asked to stop, and stopped with everything saved; resume by the same command.

    The exit status is the shell's for the signal (143 for SIGTERM, 130 for Ctrl-C), so that a
    script does not take a stopped run for a finished one.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(128 + signum)
        self.signum = signum


class StopSignal:
    """While the `with` block is open, SIGTERM and the first Ctrl-C only set `signum`.

    A second signal of the kind acts as it did before the block, so nobody is locked in.
    """

    SIGNALS = (signal.SIGTERM, signal.SIGINT)

    def __init__(self) -> None:
        self.signum: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignal:
        # Python lets only the main thread set handlers; elsewhere the program's own stay.
        if threading.current_thread() is threading.main_thread():
            for signum in self.SIGNALS:
                # None stands for a handler that was not set from Python.
                self._before[signum] = (
                    signal.signal(signum, self._on_signal) or signal.SIG_DFL)
        return self

    def __exit__(self, *_: object) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)
        self._before = {}

    def _on_signal(self, signum: int, _: FrameType | None) -> None:
        self.signum = signum
        signal.signal(signum, self._before[signum])
