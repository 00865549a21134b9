"""Compilations: kept between runs, counted, announced before they make a person wait."""

from __future__ import annotations

import contextlib
import functools
import os
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import jax

from guardjax.cache_dir import cache_dir
from guardjax.train.phases import COMPILE, phase

COMPILE_EVENT = "/jax/core/compile/backend_compile_duration"
CACHE_HIT_EVENT = "/jax/compilation_cache/cache_hits"

_listeners: list[Callable[[str, int], None]] = []


def enable_compile_cache(directory: str | os.PathLike[str] | None = None) -> pathlib.Path:
    """Keeps compiled programs on disk; returns where.

    The folder is the argument, else `JAX_COMPILATION_CACHE_DIR`, else `cache_dir()`/xla.
    """
    chosen = directory or os.environ.get("JAX_COMPILATION_CACHE_DIR") or cache_dir() / "xla"
    path = pathlib.Path(chosen).expanduser()
    path.mkdir(parents=True, exist_ok=True)
    jax.config.update("jax_compilation_cache_dir", str(path))
    # A disk read costs milliseconds: everything slower than that is worth keeping.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    return path


class CountedJit:
    """`jax.jit` that counts its traces, one for each combination of shapes (bucket).

    Use it for every function that is expensive to compile, so that a run can say how many
    programs it built, and a test that there were no more than buckets.
    """

    def __init__(self, fn: Callable[..., Any], name: str = "", **jit_options: Any) -> None:
        self.name = name or fn.__name__
        self.num_traces = 0
        self._call: contextlib.ExitStack | None = None      # the call that is under way

        @functools.wraps(fn)
        def counted(*args: Any, **kwargs: Any) -> Any:
            self.num_traces += 1        # Python runs while tracing only
            for listener in _listeners:
                listener(self.name, self.num_traces)
            if self._call is not None:      # until its end: lowering and compiling follow
                self._call.enter_context(phase(COMPILE))
            return fn(*args, **kwargs)

        self._jitted = jax.jit(counted, **jit_options)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with contextlib.ExitStack() as self._call:
            try:
                return self._jitted(*args, **kwargs)
            finally:
                self._call = None

    def lower(self, *args: Any, **kwargs: Any) -> jax.stages.Lowered:
        """Traces for the given (possibly abstract) arguments without running; counts too."""
        return self._jitted.lower(*args, **kwargs)


@contextlib.contextmanager
def announce_traces(listener: Callable[[str, int], None]) -> Iterator[None]:
    """Calls `listener(name, traces so far)` whenever a `CountedJit` is about to compile."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


class CompilationCounter:
    """Counts what XLA is asked to compile while the `with` block is open, by any `jit`.

    `count` includes `cache_hits`, programs that were read from the cache on disk instead.
    """

    def __init__(self) -> None:
        self.count = 0
        self.cache_hits = 0
        self.seconds = 0.0

    def __enter__(self) -> CompilationCounter:
        jax.monitoring.register_event_duration_secs_listener(self._on_duration)
        jax.monitoring.register_event_listener(self._on_event)
        return self

    def __exit__(self, *_: object) -> None:
        jax.monitoring.unregister_event_duration_listener(self._on_duration)
        jax.monitoring.unregister_event_listener(self._on_event)

    def _on_duration(self, event: str, seconds: float, **_: Any) -> None:
        if event == COMPILE_EVENT:
            self.count += 1
            self.seconds += seconds

    def _on_event(self, event: str, **_: Any) -> None:
        self.cache_hits += event == CACHE_HIT_EVENT


def compilation_line(jits: list[CountedJit], num_buckets: int) -> str:
    """Returns e.g. "compilations: 3 (buckets: 2): sft_step 2, sample 1"."""
    parts = ", ".join(f"{jit.name} {jit.num_traces}" for jit in jits)
    return f"compilations: {sum(j.num_traces for j in jits)} (buckets: {num_buckets}): {parts}"
