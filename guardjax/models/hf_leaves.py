"""One leaf of the parameters from the files of a checkpoint: whole, sharded, or in four bits."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from guardjax.models.hf_names import TensorSpec, copy_turned, from_hf_layout, leaf_shape
from guardjax.models.shards import StoredTensor, WeightsError

# A tensor of another type or layout is read in pieces, so that it is never there twice.
_PIECE_BYTES = 32 * 2**20
_ALIGNMENT = 64     # bytes


def read_leaf(specs: Sequence[TensorSpec], stored: Mapping[str, StoredTensor], dtype: np.dtype,
            sharding: jax.sharding.Sharding | None) -> jax.Array:
    """One leaf as an array: a tensor, or a stack of layers; each device reads its own part.

    Raises:
        WeightsError: a tensor that cannot be read, or that float16 cannot hold.
    """
    shape = leaf_shape(specs)
    if sharding is None:
        return jax.device_put(_part(specs, stored, dtype, (slice(None),) * len(shape)))
    # Replicas ask for the same part, and it is read once.
    parts: dict[str, np.ndarray] = {}

    def read(index: tuple[slice, ...]) -> np.ndarray:
        key = repr(index)
        if key not in parts:
            parts[key] = _part(specs, stored, dtype, index)
        return parts[key]

    return jax.make_array_from_callback(shape, sharding, read, dtype=dtype)


def read_in_four_bits(specs: Sequence[TensorSpec], stored: Mapping[str, StoredTensor],
                      dtype: np.dtype) -> Any:
    """A kernel, or a stack of layers' kernels, as `models.nf4.quantise` would leave it.

    One tensor at a time is read, so that no stack is ever there in `dtype`.
    """
    from guardjax.models.nf4 import quantise_one_by_one    # the extra `qlora`

    def kernels() -> Iterator[tuple[tuple[int, ...], np.ndarray]]:
        for spec in specs:
            alone = dataclasses.replace(spec, layer=())
            yield spec.layer, _part([alone], stored, dtype, (slice(None),) * len(spec.our_shape))

    return quantise_one_by_one(leaf_shape(specs), kernels())


def _part(specs: Sequence[TensorSpec], stored: Mapping[str, StoredTensor], dtype: np.dtype,
          index: tuple[slice, ...]) -> np.ndarray:
    """The part `index` of a leaf in our layout; `stored` is in theirs."""
    ranges = [range(*s.indices(n)) for s, n in zip(index, leaf_shape(specs), strict=True)]
    part = _aligned([len(r) for r in ranges], dtype)
    for spec in specs:
        stack, own = ranges[:len(spec.layer)], ranges[len(spec.layer):]
        if any(i not in r for i, r in zip(spec.layer, stack)):
            continue
        target = part[tuple(r.index(i) for i, r in zip(spec.layer, stack))]
        with np.errstate(over="ignore"):    # `check_held` says it, also of bfloat16
            _read_into(target, spec, stored[spec.name], own)
        if stored[spec.name].dtype != dtype.name:
            check_held(spec.name, target)
    return part


def _aligned(shape: Sequence[int], dtype: np.dtype) -> np.ndarray:
    """An empty array that JAX takes as it is on a CPU, without a copy: it starts at 64 bytes."""
    size = dtype.itemsize * math.prod(shape)
    room = np.empty(size + _ALIGNMENT, np.uint8)
    start = -room.ctypes.data % _ALIGNMENT
    return room[start:start + size].view(dtype).reshape(shape)


def _read_into(part: np.ndarray, spec: TensorSpec, stored: StoredTensor,
               ranges: Sequence[range]) -> None:
    """Fills `part` with the part `ranges` of one tensor."""
    if len(spec.shape) > 2:     # the patch embedding, which is small
        index = tuple(slice(r.start, r.stop) for r in ranges)
        part[...] = from_hf_layout(spec, stored.read())[index]
        return
    rows, *columns = ranges[::-1] if spec.is_kernel else ranges
    row_bytes = 4 * int(np.prod([len(r) for r in columns], dtype=np.int64))
    done = 0
    for piece in pieces(rows, row_bytes):
        read = stored.read((piece, *(slice(r.start, r.stop) for r in columns)))
        if spec.is_kernel:
            copy_turned(read, part[:, done:done + len(read)])
        else:
            part[done:done + len(read)] = read
        done += len(read)


def check_held(name: str, array: np.ndarray) -> None:
    """That a tensor made into float16 did not overflow; bfloat16 reaches as far as float32.

    Raises:
        WeightsError: it did.
    """
    # No array of flags beside it: a tensor may be as large as the room that is left.
    if array.dtype == np.float16 and not np.isfinite([array.min(initial=0),
                                                      array.max(initial=0)]).all():
        raise WeightsError(f"tensor {name} has numbers that float16 cannot hold (its largest is "
                           f"{np.finfo(np.float16).max:,.0f}); take bfloat16 or float32")


def pieces(rows: range, row_bytes: int) -> list[slice]:
    """Cuts the rows of a tensor so that a piece takes some ten megabytes."""
    step = max(1, _PIECE_BYTES // max(1, row_bytes))
    return [slice(start, min(start + step, rows.stop))
            for start in range(rows.start, rows.stop, step)]
