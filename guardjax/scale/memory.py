"""What a compiled program takes of a chip's memory, or by how much it does not fit."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import time
from collections.abc import Iterator

import jax
from jax.experimental.compilation_cache import compilation_cache

# Two ways in which the compiler says so: from its first look, and when it places what is there.
_TOO_LARGE = re.compile(r"Used ([\d.]+)([KMGT]) of [\d.]+[KMGT] hbm"
                        r"|required for HLO temporaries \(([\d.]+)([KMGT])\) exceeds available HBM")
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes of one chip. Results that take the place of donated arguments count once.

    `arguments` and `temporaries` are None where the compiler gave up: it then says the peak alone.
    """

    arguments: int | None
    temporaries: int | None
    peak: int
    seconds: float              # wall time of the compilation

    def spare(self, limit: int) -> float:
        """The share of `limit` bytes that is left, negative where the program does not fit."""
        return 1 - self.peak / limit


def compile_memory(lowered: jax.stages.Lowered) -> tuple[jax.stages.Compiled | None, Memory]:
    """Compiles; returns the program (None if it does not fit the chip) and its memory.

    Raises:
      jax.errors.JaxRuntimeError: the compiler stopped for any reason but memory.
    """
    start = time.perf_counter()
    try:
        with _not_kept():
            compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        used = bytes_asked_for(str(error))
        if used is None:
            raise
        return None, Memory(None, None, used, time.perf_counter() - start)
    seconds = time.perf_counter() - start
    stats = compiled.memory_analysis()
    new = stats.output_size_in_bytes - stats.alias_size_in_bytes
    peak = (stats.argument_size_in_bytes + new + stats.temp_size_in_bytes
            + stats.generated_code_size_in_bytes)
    return compiled, Memory(stats.argument_size_in_bytes, stats.temp_size_in_bytes, peak, seconds)


@contextlib.contextmanager
def _not_kept() -> Iterator[None]:
    """Compiling past the cache on disk: what is for chips that are not there cannot be read back.
    """
    before = jax.config.jax_enable_compilation_cache
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()     # whether there is a cache is asked once, and remembered
    try:
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", before)
        compilation_cache.reset_cache()


def bytes_asked_for(message: str) -> int | None:
    """The bytes that a program needed, from the error of a compiler that had less; else None."""
    match = _TOO_LARGE.search(message)
    if match is None:
        return None
    return int(float(match[1] or match[3]) * _UNITS[match[2] or match[4]])
