"""What the processes of a run tell each other: failures, rows, when to stop.

A run on several hosts is one program that every process starts with the same config (`jax.
distributed`, see `join.py`). What is on the mesh, XLA keeps equal. What is decided on the host must
follow from the same numbers on all of them, or one process waits for ever in a collective that
the others never enter. So whatever a process alone knows goes through this file.

All functions are collectives: every process calls them, in the same order, from the main thread.
With one process they cost nothing.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

T = TypeVar("T")

_TEXT_BYTES = 1000      # of a failure, as the other processes see it


class PeerError(RuntimeError):
    """Another process failed where all must succeed. Its own log says more."""


def num_processes() -> int:
    """How many processes the run has."""
    return jax.process_count()


def is_first() -> bool:
    """Whether this is process 0, which alone writes logs, reports and models."""
    return jax.process_index() == 0


def together(work: Callable[[], T]) -> T:
    """Returns `work()`; raises on every process if it raised on any.

    Raises:
      PeerError: it failed elsewhere, naming the processes and what they said.
      Whatever `work` raises here.
    """
    if num_processes() == 1:
        return work()
    result, error = None, None
    try:
        result = work()
    except Exception as raised:     # told to the others before it goes on
        error = raised
    said = gather_texts("" if error is None else f"{type(error).__name__}: {error}")
    if error is not None:
        raise error
    if failed := {process: text for process, text in enumerate(said) if text}:
        raise PeerError("; ".join(f"process {process}: {text}"
                                  for process, text in failed.items()))
    return result


def first_only(work: Callable[[], Any]) -> None:
    """Runs `work` on process 0 alone; all go on when it is done.

    Raises:
      PeerError: elsewhere, where it failed.
    """
    together(work if is_first() else lambda: None)


def gather_texts(text: str) -> list[str]:
    """The texts of all processes in order, each cut to about `_TEXT_BYTES`."""
    padded = text.encode()[:_TEXT_BYTES].ljust(_TEXT_BYTES, b"\0")
    rows = gather_arrays(np.frombuffer(padded, np.uint8))
    return [row.tobytes().rstrip(b"\0").decode(errors="replace") for row in rows]


def gather_arrays(array: np.ndarray) -> np.ndarray:
    """[processes, ...] of every process's array, which are of one shape and at most 32 bits."""
    return np.asarray(multihost_utils.process_allgather(array)).reshape(-1, *array.shape)


def gather_rows(array: np.ndarray, rows: slice, total: int) -> np.ndarray:
    """[total, ...] of every process's rows, bit for bit.

    Args:
      array: [n, ...] host array, rows `rows` of the whole; n is equal everywhere.
      rows: where they belong. Processes may have the same rows.
      total: rows of the whole.
    """
    if num_processes() == 1:
        return array
    # As bytes: on the device a float64 would become a float32.
    flat = np.ascontiguousarray(array).reshape(len(array), -1)
    parts = gather_arrays(flat.view(np.uint8))
    starts = gather_arrays(np.int32(rows.start))
    whole = np.empty((total, *array.shape[1:]), array.dtype)
    for start, part in zip(starts, parts, strict=True):
        whole[start:start + len(part)] = part.view(array.dtype).reshape(array.shape)
    return whole


def fetch(tree: Any) -> Any:
    """Arrays of the device on the host, whole on every process, wherever their shards are."""
    if num_processes() == 1:
        return jax.device_get(tree)
    return jax.tree.map(_fetch, tree)


def fetch_on_first(tree: Any) -> Any:
    """As `fetch`, array after array; processes other than 0 keep none of them (None)."""
    def keep(leaf: Any) -> Any:
        found = _fetch(leaf)
        return found if is_first() else None

    return tree if num_processes() == 1 else jax.tree.map(keep, tree)


class StopVote:
    """Makes all processes stop at one step, when any of them was asked to.

    Each step the processes' signals go into a maximum on the device, and the maximum of the step
    before is read: the device never waits for the host, and everybody reads the same number at the
    same step, one step after the signal came.
    """

    def __init__(self) -> None:
        self._pending: jax.Array | None = None

    def cast(self, signum: int | None) -> int | None:
        """The signal on which all stop now, or None; call it once a step with one's own signal."""
        if num_processes() == 1:
            return signum
        pending, self._pending = self._pending, _maximum(signum or 0)
        return (None if pending is None else int(pending)) or None


def _maximum(number: int) -> jax.Array:
    sharding = NamedSharding(Mesh(np.asarray(jax.devices()), ("device",)), PartitionSpec("device"))
    own = np.full(jax.local_device_count(), number, np.int32)
    return _max(sharding.mesh)(jax.make_array_from_process_local_data(sharding, own))


@functools.cache
def _max(mesh: Mesh) -> Callable[[jax.Array], jax.Array]:
    return jax.jit(jnp.max, out_shardings=NamedSharding(mesh, PartitionSpec()))


def _fetch(leaf: Any) -> np.ndarray:
    if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable:
        return np.asarray(leaf)
    return np.asarray(multihost_utils.process_allgather(leaf, tiled=True))
