"""Timing on a busy machine, and what this core can do at most in the same minutes."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

READ_BYTES = 256 * 2**20    # of each array that is read: many times any cache
SIZE = 1024                 # of the matrices that are multiplied


class Timed(NamedTuple):
    """What is timed, after what is not: `run(prepare())`."""

    run: Callable[[Any], Any]
    prepare: Callable[[], Any] = lambda: None


class Seconds(NamedTuple):
    """Medians. Others on the core add to `wall` alone."""

    cpu: float      # of this process, all its threads
    wall: float


def interleaved(things: Mapping[str, Timed], repeats: int) -> dict[str, Seconds]:
    """Each thing once a round, so that what else the machine does falls on all alike."""
    taken: dict[str, list[Seconds]] = {name: [] for name in things}
    for _ in range(repeats):
        for name, thing in things.items():
            prepared = thing.prepare()
            cpu, wall = time.process_time(), time.perf_counter()
            thing.run(prepared)
            taken[name].append(Seconds(time.process_time() - cpu, time.perf_counter() - wall))
    return {name: Seconds(*map(statistics.median, zip(*seconds)))
            for name, seconds in taken.items()}


def reads() -> dict[str, tuple[Timed, int]]:
    """Ways to go through memory, each with the bytes that it reads and writes."""
    one, two = (np.full(READ_BYTES // 4, value, np.float32) for value in (0.5, 0.25))
    ours, add = jnp.asarray(one), jax.jit(jnp.sum)
    add(ours)
    return {"numpy_copy": (Timed(lambda _: np.copyto(two, one)), 2 * READ_BYTES),
            "numpy_dot": (Timed(lambda _: np.dot(one, two)), 2 * READ_BYTES),
            "jax_sum": (Timed(lambda _: jax.block_until_ready(add(ours))), READ_BYTES)}


def products() -> dict[str, tuple[Timed, int]]:
    """Ways to multiply two matrices, each with its floating point operations."""
    one = np.random.default_rng(0).standard_normal((SIZE, SIZE), np.float32)
    ours, multiply = jnp.asarray(one), jax.jit(jnp.matmul)
    multiply(ours, ours)
    return {"numpy_matmul": (Timed(lambda _: one @ one), 2 * SIZE**3),
            "jax_matmul": (Timed(lambda _: jax.block_until_ready(multiply(ours, ours))),
                           2 * SIZE**3)}


def best(ways: Mapping[str, tuple[Timed, int]], seconds: Mapping[str, Seconds],
         clock: Literal["cpu", "wall"] = "cpu") -> tuple[str, float]:
    """(name, units a second of that clock) of the fastest way."""
    rates = {name: amount / getattr(seconds[name], clock) for name, (_, amount) in ways.items()}
    name = max(rates, key=rates.__getitem__)
    return name, rates[name]
