"""A profile of chosen steps, to be opened in Perfetto or xprof."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import Any

import jax

FOLDER = "profile"


class StepProfile:
    """Traces steps `first` to `last` into `folder`; use `close` at the end of the run."""

    def __init__(self, first: int, last: int, folder: pathlib.Path,
                 tell: Callable[[str], None]) -> None:
        self._first, self._last, self._folder, self._tell = first, last, folder, tell
        self._on = self._done = False

    def before(self, step: int) -> None:
        """Starts the trace if `step` (counted from 1 over all stages) is to be seen."""
        if self._first <= step <= self._last and not self._on:
            options = jax.profiler.ProfileOptions()
            options.python_tracer_level = 0     # every call of Python would hide the rest
            jax.profiler.start_trace(self._folder, create_perfetto_trace=True,
                                     profiler_options=options)
            self._on = True

    def after(self, step: int, result: Any) -> None:
        """Ends the trace after the last step, when the devices are done with `result`."""
        if self._on and step >= self._last:
            jax.block_until_ready(result)
            self.close()

    def close(self) -> None:
        """Writes what was traced, if anything is open; says if the steps never came."""
        if self._on:
            jax.profiler.stop_trace()
            self._on, self._done = False, True
            files = sorted(self._folder.glob("plugins/profile/*/perfetto_trace.json.gz"))
            self._tell(f"profile: {files[-1]}: open it at https://ui.perfetto.dev, or the folder "
                       f"{self._folder} with xprof")
        elif not self._done:
            self._done = True
            self._tell(f"profile: no step {self._first} to {self._last} was done in this start")
