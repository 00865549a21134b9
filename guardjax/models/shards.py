"""Safetensors files: every tensor of a checkpoint directory by name, and files written in a stream.

A directory holds `model.safetensors`, or `model.safetensors.index.json` and its shards. Opening
one reads headers only; of a tensor, only the part that is asked for.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np
import safetensors

from guardjax.json_file import read_json

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"

DTYPES = {"float32": np.dtype(np.float32), "float16": np.dtype(np.float16),
          "bfloat16": np.dtype(ml_dtypes.bfloat16)}
_FILE_TYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_TYPE_NAMES = {name: kind for kind, name in _FILE_TYPES.items()}


class WeightsError(ValueError):
    """A checkpoint that cannot be trusted: the message names the file or the tensor."""


@dataclasses.dataclass(frozen=True)
class StoredTensor:
    """A tensor in a file. `dtype` is "float32", "float16" or "bfloat16"."""

    name: str
    file: pathlib.Path
    shape: tuple[int, ...]
    dtype: str
    _slice: Any

    def read(self, index: tuple[slice, ...] = ()) -> np.ndarray:
        """The part `index` of it, or all of it.

        Raises:
            WeightsError: the file cannot be read any more.
        """
        try:
            return self._slice[index or (slice(None),) * len(self.shape)]
        except safetensors.SafetensorError as error:
            raise WeightsError(f"{self.file}: tensor {self.name} cannot be read: {error}"
                               ) from error


@contextlib.contextmanager
def open_checkpoint(folder: pathlib.Path) -> Iterator[list[StoredTensor]]:
    """All tensors of a directory, under the names in the files.

    Raises:
        FileNotFoundError: no such directory, or no weights in it.
        WeightsError: pickled weights, a missing or broken shard, shards that are not what the
            index says, or a tensor that is not a float of 16 or 32 bits.
    """
    with contextlib.ExitStack() as stack:
        tensors = []
        for file, expected in _shard_files(folder).items():
            shard = stack.enter_context(open_file(file))
            names = {tensor.name for tensor in shard}
            if expected is not None and expected != names:
                raise WeightsError(f"{file} does not hold what {INDEX_FILE} says: "
                                   f"{some(sorted(expected ^ names))}")
            tensors += shard
        yield tensors


@contextlib.contextmanager
def open_file(file: pathlib.Path) -> Iterator[list[StoredTensor]]:
    """All tensors of one file, sorted by name.

    Raises:
        WeightsError: a broken file, or a tensor that is not a float of 16 or 32 bits.
    """
    with contextlib.ExitStack() as stack:
        try:
            opened = stack.enter_context(safetensors.safe_open(file, framework="numpy"))
        except safetensors.SafetensorError as error:
            raise WeightsError(f"{file} is not a whole safetensors file ({error}); get it again"
                               ) from error
        tensors = []
        for name in sorted(opened.keys()):
            part = opened.get_slice(name)
            kind = part.get_dtype()
            if kind not in _FILE_TYPES:
                raise WeightsError(f"{file}: tensor {name} has type {kind}, expected one of "
                                   f"{sorted(_FILE_TYPES)}; quantised weights cannot be read")
            tensors.append(StoredTensor(name, file, tuple(part.get_shape()), _FILE_TYPES[kind],
                                        part))
        yield tensors


def stored_dtype(folder: pathlib.Path) -> str:
    """The widest type of a directory's tensors. Raises as `open_checkpoint`."""
    with open_checkpoint(folder) as tensors:
        found = {tensor.dtype for tensor in tensors}
    # Neither 16-bit type holds the numbers of the other.
    return found.pop() if len(found) == 1 else "float32"


def write_file(file: pathlib.Path, tensors: Sequence[tuple[str, tuple[int, ...]]], dtype: str,
               make: Callable[[str], np.ndarray]) -> None:
    """Writes one safetensors file, holding one tensor at a time.

    Args:
        file: is replaced.
        tensors: (name, shape) of each, in the order of the file.
        dtype: of all: "float32", "float16" or "bfloat16".
        make: gives the tensor of a name when its turn comes.

    Raises:
        WeightsError: `make` gave another shape or type than was said.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in tensors:
        start, end = end, end + DTYPES[dtype].itemsize * int(np.prod(shape, dtype=np.int64))
        header[name] = {"dtype": _TYPE_NAMES[dtype], "shape": list(shape),
                        "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)         # the format aligns the first tensor to 8 bytes
    with open(file, "wb") as out:
        out.write(len(text).to_bytes(8, "little") + text)
        for name, shape in tensors:
            array = make(name)
            if array.shape != shape or array.dtype != DTYPES[dtype]:
                raise WeightsError(f"tensor {name} is {array.dtype} {array.shape}, not {dtype} "
                                   f"{shape} as its file says")
            out.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
        out.flush()
        os.fsync(out.fileno())


def some(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    shown = ", ".join(names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"


def _shard_files(folder: pathlib.Path) -> dict[pathlib.Path, set[str] | None]:
    """The files to read, each with the names that the index promises (None without an index).

    Of a single file and an index beside it the single file counts, as for transformers.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a directory")
    if (folder / SINGLE_FILE).is_file():
        return {folder / SINGLE_FILE: None}
    if (folder / INDEX_FILE).is_file():
        return _indexed_files(folder)
    pickles = sorted(f.name for pattern in ("*.bin", "*.pt", "*.pth") for f in folder.glob(pattern))
    if pickles:
        raise WeightsError(f"{folder} has only pickled weights ({some(pickles)}), which can run "
                           "code when they are read; convert them to safetensors")
    raise FileNotFoundError(f"{folder} has neither {SINGLE_FILE} nor {INDEX_FILE}")


def _indexed_files(folder: pathlib.Path) -> dict[pathlib.Path, set[str] | None]:
    weight_map = read_json(folder / INDEX_FILE, WeightsError).get("weight_map")
    if not isinstance(weight_map, Mapping) or not weight_map:
        raise WeightsError(f"{folder / INDEX_FILE} has no weight_map")
    files: dict[pathlib.Path, set[str] | None] = {}
    for name, file in weight_map.items():
        if not isinstance(file, str) or pathlib.PurePath(file).name != file:
            raise WeightsError(f"{folder / INDEX_FILE} points outside the directory: {file}")
        files.setdefault(folder / file, set()).add(name)
    for file in files:
        if not file.is_file():
            raise WeightsError(f"{folder}: shard {file.name} is missing")
        if file.suffix != ".safetensors":
            raise WeightsError(f"{folder}: shard {file.name} is no safetensors file")
    return files
