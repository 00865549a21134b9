"""Hugging Face checkpoints in and out: one table of names, used in both directions.

A checkpoint is a directory with `config.json` and safetensors: `model.safetensors`, or
`model.safetensors.index.json` and its shards. Names are those of the hub (`model.layers.0...`,
`visual...`), which `save_pretrained` writes whatever a release calls its modules in memory.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping

import flax.traverse_util
import jax
import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy

from guardjax.models.config import ModelConfig
from guardjax.models.init import Params, param_shapes

CONFIG_FILE = "config.json"
SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"

_NUMPY_TYPES = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}
_FILE_TYPES = {"F32", "F16", "BF16"}

# The names that some releases of transformers give the modules in memory.
_ALIASES = (("model.language_model.", "model."), ("model.visual.", "visual."))


class WeightsError(ValueError):
    """A checkpoint that cannot be trusted: the message names the file or the tensor."""


@dataclasses.dataclass(frozen=True)
class TensorSpec:
    """One row of the table: where a tensor is here, its name and shape there."""

    path: tuple[str, ...]
    name: str
    shape: tuple[int, ...]


def tensor_table(cfg: ModelConfig) -> tuple[TensorSpec, ...]:
    """All tensors of a model of any size, without allocating them."""
    flat = flax.traverse_util.flatten_dict(param_shapes(cfg))
    return tuple(TensorSpec(path, _hf_name(path), _hf_shape(cfg, path, leaf.shape))
                 for path, leaf in sorted(flat.items()))


def to_hf_layout(spec: TensorSpec, array: np.ndarray) -> np.ndarray:
    """Our array in Hugging Face's shape: linear weights are [out, in], the patch embed a conv."""
    return np.ascontiguousarray(_turned(spec, array).reshape(spec.shape))


def from_hf_layout(spec: TensorSpec, array: np.ndarray) -> np.ndarray:
    """The inverse of `to_hf_layout`: kernels are [in, out], a patch is one flat vector."""
    return _turned(spec, array.reshape(spec.shape[0], -1) if _is_kernel(spec) else array)


def load_hf(path: str | os.PathLike, cfg: ModelConfig | None = None, *, dtype: str = "float32",
            shardings: Params | None = None) -> tuple[ModelConfig, Params]:
    """Reads a checkpoint directory, tensor by tensor.

    Args:
        path: the directory.
        cfg: the config to use; read from `config.json` if None.
        dtype: type of the parameters: float32, bfloat16 or float16.
        shardings: a tree like the parameters; each tensor is placed as it is read.

    Raises:
        FileNotFoundError: no such directory, config or weights.
        WeightsError: pickled weights; a missing or broken shard; a tensor that is missing, unused,
            of the wrong shape or not a float.
        ValueError: a config of another architecture.
    """
    folder = pathlib.Path(path)
    if cfg is None:
        cfg = read_config(folder)
    specs = {spec.name: spec for spec in tensor_table(cfg)}
    places = None if shardings is None else flax.traverse_util.flatten_dict(shardings)
    flat, tied_head = {}, None
    for name, array in _read_tensors(folder):
        spec = specs.get(name)
        if spec is None and name == "lm_head.weight" and cfg.tie_word_embeddings:
            tied_head = array
            continue
        _check_tensor(spec, name, array, folder, seen=flat)
        array = from_hf_layout(spec, array).astype(_NUMPY_TYPES[dtype])
        flat[spec.path] = jax.device_put(array, None if places is None else places[spec.path])
    missing = sorted(spec.name for spec in specs.values() if spec.path not in flat)
    if missing:
        raise WeightsError(f"{folder}: {len(missing)} tensors are missing: {_some(missing)}")
    params = flax.traverse_util.unflatten_dict(flat)
    if tied_head is not None:
        _check_tied(params, tied_head, folder, dtype)
    return cfg, params


def save_hf(params: Params, cfg: ModelConfig, path: str | os.PathLike, *, dtype: str = "float32",
            max_shard_bytes: int = 4 * 1024**3) -> None:
    """Writes a checkpoint directory that transformers loads. It appears whole or not at all.

    Args:
        params: the tree of `init_params` or `load_hf`.
        cfg: its config.
        path: a directory that does not exist yet, or is empty.
        dtype: type in the files: float32, bfloat16 or float16.
        max_shard_bytes: larger models are written in several files with an index.

    Raises:
        FileExistsError: `path` is a file or a directory with something in it.
        WeightsError: `params` is not the tree of `cfg`.
    """
    target = pathlib.Path(path)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise FileExistsError(f"{target} exists and is not an empty directory")
    flat = flax.traverse_util.flatten_dict(params)
    specs = tensor_table(cfg)
    _check_tree(flat, specs)
    itemsize = np.dtype(_NUMPY_TYPES[dtype]).itemsize
    shards = _shards(specs, itemsize, max_shard_bytes)
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = pathlib.Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        weight_map = {}
        for number, shard in enumerate(shards, start=1):
            file = (SINGLE_FILE if len(shards) == 1
                    else f"model-{number:05d}-of-{len(shards):05d}.safetensors")
            tensors = {spec.name: _exported(spec, flat, dtype) for spec in shard}
            safetensors.numpy.save_file(tensors, staging / file, metadata={"format": "pt"})
            (staging / file).chmod(0o644)   # it is written for its owner alone
            weight_map |= {spec.name: file for spec in shard}
        if len(shards) > 1:
            total = itemsize * sum(int(np.prod(spec.shape)) for spec in specs)
            _write_json(staging / INDEX_FILE, {"metadata": {"total_size": total},
                                               "weight_map": dict(sorted(weight_map.items()))})
        _write_json(staging / CONFIG_FILE, {**cfg.to_hf(), "dtype": dtype})
        staging.chmod(0o755)
        staging.rename(target)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise


def read_config(folder: str | os.PathLike) -> ModelConfig:
    """The config of a checkpoint directory.

    Raises:
        FileNotFoundError: no `config.json`.
        WeightsError: it is not JSON.
        ValueError: another architecture.
    """
    file = pathlib.Path(folder) / CONFIG_FILE
    if not file.is_file():
        raise FileNotFoundError(f"{folder} has no {CONFIG_FILE}")
    return ModelConfig.from_hf(_read_json(file))


def _hf_name(path: tuple[str, ...]) -> str:
    """`model/layers_0/mlp/up_proj/kernel` is `model.layers.0.mlp.up_proj.weight`."""
    *modules, leaf = path
    dotted = [re.sub(r"_(\d+)$", r".\1", module) for module in modules]
    if modules == ["visual", "patch_embed"]:
        dotted.append("proj")
    return ".".join([*dotted, "bias" if leaf == "bias" else "weight"])


def _hf_shape(cfg: ModelConfig, path: tuple[str, ...], shape: tuple[int, ...]) -> tuple[int, ...]:
    if path[-1] != "kernel":
        return shape
    if path[:2] == ("visual", "patch_embed"):
        vision = cfg.vision
        return (shape[1], vision.in_channels, vision.temporal_patch_size, vision.patch_size,
                vision.patch_size)
    return shape[::-1]


def _is_kernel(spec: TensorSpec) -> bool:
    return spec.path[-1] == "kernel"


def _turned(spec: TensorSpec, array: np.ndarray) -> np.ndarray:
    return array.T if _is_kernel(spec) else array


def _read_tensors(folder: pathlib.Path) -> Iterator[tuple[str, np.ndarray]]:
    """Every tensor of every shard under its hub name."""
    for file, expected in _shard_files(folder).items():
        try:
            with safetensors.safe_open(file, framework="numpy") as shard:
                names = set(shard.keys())
                if expected is not None and expected != names:
                    raise WeightsError(f"{file} does not hold what {INDEX_FILE} says: "
                                       f"{_some(sorted(expected ^ names))}")
                for name in sorted(names):
                    kind = shard.get_slice(name).get_dtype()
                    if kind not in _FILE_TYPES:
                        raise WeightsError(f"{file}: tensor {name} has type {kind}, expected one "
                                           f"of {sorted(_FILE_TYPES)}")
                    yield _hub_name(name), shard.get_tensor(name)
        except safetensors.SafetensorError as error:
            raise WeightsError(f"{file} is not a whole safetensors file: {error}") from error


def _shard_files(folder: pathlib.Path) -> dict[pathlib.Path, set[str] | None]:
    """The files to read, each with the names that the index promises (None without an index)."""
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a directory")
    if (folder / INDEX_FILE).is_file():
        weight_map = _read_json(folder / INDEX_FILE).get("weight_map")
        if not isinstance(weight_map, Mapping) or not weight_map:
            raise WeightsError(f"{folder / INDEX_FILE} has no weight_map")
        files: dict[pathlib.Path, set[str] | None] = {}
        for name, file in weight_map.items():
            if pathlib.PurePath(file).name != file:
                raise WeightsError(f"{folder / INDEX_FILE} points outside the directory: {file}")
            files.setdefault(folder / file, set()).add(name)
        for file in files:
            if not file.is_file():
                raise WeightsError(f"{folder}: shard {file.name} is missing")
        return files
    if (folder / SINGLE_FILE).is_file():
        return {folder / SINGLE_FILE: None}
    pickles = sorted(f.name for pattern in ("*.bin", "*.pt", "*.pth") for f in folder.glob(pattern))
    if pickles:
        raise WeightsError(f"{folder} has only pickled weights ({_some(pickles)}), which can run "
                           "code when they are read; convert them to safetensors")
    raise FileNotFoundError(f"{folder} has neither {SINGLE_FILE} nor {INDEX_FILE}")


def _check_tensor(spec: TensorSpec | None, name: str, array: np.ndarray, folder: pathlib.Path,
                  seen: Mapping) -> None:
    if spec is None:
        raise WeightsError(f"{folder}: tensor {name} has no place in this model")
    if array.shape != spec.shape:
        raise WeightsError(f"{folder}: tensor {name} has shape {array.shape}, "
                           f"expected {spec.shape}")
    if spec.path in seen:
        raise WeightsError(f"{folder}: tensor {name} occurs twice")


def _check_tied(params: Params, head: np.ndarray, folder: pathlib.Path, dtype: str) -> None:
    embedding = np.asarray(params["model"]["embed_tokens"]["embedding"])
    if not np.array_equal(head.astype(_NUMPY_TYPES[dtype]), embedding):
        raise WeightsError(f"{folder}: the config ties the head to the embedding, but "
                           "lm_head.weight differs from it")


def _check_tree(flat: Mapping[tuple[str, ...], jax.Array], specs: tuple[TensorSpec, ...]) -> None:
    wanted = {spec.path: spec for spec in specs}
    if wanted.keys() != flat.keys():
        names = sorted("/".join(path) for path in wanted.keys() ^ flat.keys())
        raise WeightsError(f"parameters do not fit the config: {_some(names)}")
    for path, spec in wanted.items():
        shape = spec.shape
        if _is_kernel(spec):
            shape = (int(np.prod(shape[1:])), shape[0])
        if flat[path].shape != shape:
            raise WeightsError(f"parameter {'/'.join(path)} has shape {flat[path].shape}, expected "
                               f"{shape}")


def _shards(specs: tuple[TensorSpec, ...], itemsize: int, limit: int) -> list[list[TensorSpec]]:
    """Splits the table in order, so that no file exceeds `limit` unless one tensor does."""
    shards: list[list[TensorSpec]] = []
    room = 0
    for spec in specs:
        size = int(np.prod(spec.shape)) * itemsize
        if not shards or size > room:
            shards.append([])
            room = limit
        shards[-1].append(spec)
        room -= size
    return shards


def _exported(spec: TensorSpec, flat: Mapping[tuple[str, ...], jax.Array],
              dtype: str) -> np.ndarray:
    return to_hf_layout(spec, np.asarray(flat[spec.path])).astype(_NUMPY_TYPES[dtype])


def _hub_name(name: str) -> str:
    for old, new in _ALIASES:
        if name.startswith(old):
            return new + name[len(old):]
    return name


def _read_json(file: pathlib.Path) -> dict:
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise WeightsError(f"{file} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise WeightsError(f"{file} is not a JSON object")
    return value


def _write_json(file: pathlib.Path, value: Mapping) -> None:
    file.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _some(names: list[str]) -> str:
    """The first few names, and how many more there are."""
    shown = ", ".join(names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"
