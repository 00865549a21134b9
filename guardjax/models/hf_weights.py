"""Hugging Face checkpoints in and out: a directory with `config.json` and safetensors."""

from __future__ import annotations

import dataclasses
import math
import os
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.traverse_util
import jax
import numpy as np

from guardjax.atomic import new_mode
from guardjax.json_file import read_json, write_json
from guardjax.models.config import ModelConfig
from guardjax.models.hf_leaves import check_held, pieces, read_in_four_bits, read_leaf
from guardjax.models.hf_names import (EMBEDDING, TensorSpec, hub_name, leaf_shape, leaf_table,
                                      tensor_table, tied_names, to_hf_layout)
from guardjax.models.init import Params
from guardjax.models.linear import NF4
from guardjax.models.shards import (DTYPES, INDEX_FILE, SINGLE_FILE, StoredTensor, WeightsError,
                                    open_checkpoint, some, write_file)
from guardjax.models.turned import KERNEL_T, is_large

__all__ = ["CONFIG_FILE", "INDEX_FILE", "SINGLE_FILE", "WeightsError", "check_tree", "load_hf",
           "read_config", "save_hf"]

CONFIG_FILE = "config.json"


def load_hf(path: str | os.PathLike, cfg: ModelConfig | None = None, *, dtype: str = "float32",
            shardings: Params | None = None,
            four_bits: Callable[[str], bool] | None = None,
            turned: bool = False) -> tuple[ModelConfig, Params]:
    """Reads a checkpoint directory, tensor by tensor.

    All names, shapes and types are checked before the first tensor is read, and on the host there
    is never more than one leaf beside those that are in place: of several processes or devices
    each reads its own part. The largest come first, when there is most room. Layers that the config
    stacks are read one by one into their places.

    Args:
        path: the directory.
        cfg: the config to use; read from `config.json` if None.
        dtype: type of the parameters: float32, bfloat16 or float16.
        shardings: a tree like the parameters; each tensor is placed as it is read.
        four_bits: whether the kernels of a module, such as "model/layers_0/mlp/up_proj", are put
            in four bits as they are read, as `models.nf4.quantise` would: beside what is kept is
            one tensor in `dtype`, also of layers that the config stacks. On one device.
        turned: large matrices are left [out, in], as the files have them, for a model that is only
            asked (see `models.turned`). On one device; `save_hf` does not take such a tree.

    Raises:
        FileNotFoundError: no such directory, config or weights.
        WeightsError: pickled weights; a missing or broken shard; a tensor that is missing, unused,
            of the wrong shape, not a float, or with numbers that float16 was asked to hold and
            cannot.
        ValueError: a config of another architecture, another `dtype`, or four bits or turned
            matrices with shardings.
    """
    if four_bits is not None and shardings is not None:
        raise ValueError("four_bits and shardings cannot be combined: a base in four bits is on "
                         "one device; leave out one of them")
    if turned and shardings is not None:
        raise ValueError("turned and shardings cannot be combined: turned matrices are for one "
                         "CPU; leave out one of them")
    folder = pathlib.Path(path)
    target = _check_dtype(dtype)
    if cfg is None:
        cfg = read_config(folder)
    places = {} if shardings is None else flax.traverse_util.flatten_dict(shardings)
    flat = {}
    with open_checkpoint(folder) as tensors:
        stored = _by_hub_name(tensors, cfg, folder)
        _check_stored(stored, cfg, folder)
        leaves = sorted(leaf_table(cfg).items(), key=lambda item: -math.prod(leaf_shape(item[1])))
        for path, specs in leaves:
            if four_bits is not None and _fits_four_bits(path, specs, four_bits):
                flat[(*path[:-1], NF4)] = read_in_four_bits(specs, stored, target)
                continue
            if turned and specs[0].is_linear and is_large(specs[0].size, target):
                path = (*path[:-1], KERNEL_T)
                specs = [dataclasses.replace(spec, path=path) for spec in specs]
            flat[path] = jax.block_until_ready(
                read_leaf(specs, stored, target, places.get(path)))
    table = flat[EMBEDDING]
    if turned and cfg.tie_word_embeddings and is_large(table.size, target):
        flat[("lm_head", KERNEL_T)] = table
    return cfg, flax.traverse_util.unflatten_dict(dict(sorted(flat.items())))


def save_hf(params: Params, cfg: ModelConfig, path: str | os.PathLike, *, dtype: str = "float32",
            max_shard_bytes: int = 4 * 1024**3) -> None:
    """Writes a checkpoint directory that transformers loads. It appears whole or not at all.

    Beside `params` there is never more than one tensor in memory.

    Args:
        params: the tree of `init_params` or `load_hf`.
        cfg: its config.
        path: a directory that does not exist yet, or is empty.
        dtype: type in the files: float32, bfloat16 or float16.
        max_shard_bytes: larger models are written in several files with an index.

    Raises:
        FileExistsError: `path` is a file or a directory with something in it.
        WeightsError: `params` is not the tree of `cfg`, or has numbers that float16 cannot hold.
        ValueError: another `dtype`.
    """
    target = pathlib.Path(path)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise FileExistsError(f"{target} exists and is not an empty directory")
    itemsize = _check_dtype(dtype).itemsize
    check_tree(params, cfg)
    specs = tensor_table(cfg)
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = pathlib.Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        weight_map = {}
        shards = _shards(specs, itemsize, max_shard_bytes)
        for number, shard in enumerate(shards, start=1):
            file = (SINGLE_FILE if len(shards) == 1
                    else f"model-{number:05d}-of-{len(shards):05d}.safetensors")
            _write_shard(staging / file, shard, params, dtype)
            weight_map |= {spec.name: file for spec in shard}
        if len(shards) > 1:
            total = itemsize * sum(spec.size for spec in specs)
            write_json(staging / INDEX_FILE, {"metadata": {"total_size": total},
                                              "weight_map": weight_map})
        write_json(staging / CONFIG_FILE, {**cfg.to_hf(), "dtype": dtype})
        staging.chmod(new_mode(0o777))
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
    return ModelConfig.from_hf(read_json(file, WeightsError))


def check_tree(params: Params, cfg: ModelConfig) -> None:
    """Checks that `params` has the leaves and shapes of `cfg`; raises `WeightsError`."""
    flat = flax.traverse_util.flatten_dict(params)
    wanted = {path: leaf_shape(specs) for path, specs in leaf_table(cfg).items()}
    if wanted.keys() != flat.keys():
        names = sorted("/".join(path) for path in wanted.keys() ^ flat.keys())
        raise WeightsError(f"parameters do not fit the config: {some(names)}")
    for path, shape in wanted.items():
        if flat[path].shape != shape:
            raise WeightsError(f"parameter {'/'.join(path)} has shape {flat[path].shape}, expected "
                               f"{shape}")


def _fits_four_bits(path: tuple[str, ...], specs: Sequence[TensorSpec],
                    chosen: Callable[[str], bool]) -> bool:
    from guardjax.models.nf4 import fits    # the extra `qlora`

    return fits("/".join(path), leaf_shape(specs), chosen)


def _check_dtype(dtype: str) -> np.dtype:
    if dtype not in DTYPES:
        raise ValueError(f"dtype is {dtype!r}; it must be one of {', '.join(DTYPES)}")
    return DTYPES[dtype]


def _by_hub_name(tensors: list[StoredTensor], cfg: ModelConfig,
                 folder: pathlib.Path) -> dict[str, StoredTensor]:
    stored: dict[str, StoredTensor] = {}
    for tensor in tensors:
        name = hub_name(cfg, tensor.name)
        if name in stored:
            raise WeightsError(f"{folder}: tensor {name} occurs twice")
        stored[name] = tensor
    return stored


def _check_stored(stored: Mapping[str, StoredTensor], cfg: ModelConfig,
                  folder: pathlib.Path) -> None:
    """That the checkpoint holds the table's tensors, no more and no less."""
    shapes = {spec.name: spec.shape for spec in tensor_table(cfg)}
    head, embedding = tied_names(cfg)
    has_both = cfg.tie_word_embeddings and head in stored
    if has_both:
        shapes[head] = shapes[embedding]
    for name, tensor in stored.items():
        if name not in shapes:
            raise WeightsError(f"{folder}: tensor {name} has no place in this model")
        if tensor.shape != shapes[name]:
            raise WeightsError(f"{folder}: tensor {name} has shape {tensor.shape}, expected "
                               f"{shapes[name]}")
    if missing := sorted(shapes.keys() - stored.keys()):
        raise WeightsError(f"{folder}: {len(missing)} tensors are missing: {some(missing)}")
    if has_both:
        _check_tied(stored[head], stored[embedding], folder)


def _check_tied(head: StoredTensor, embedding: StoredTensor, folder: pathlib.Path) -> None:
    for rows in pieces(range(head.shape[0]), head.shape[1] * 4):
        if not np.array_equal(head.read((rows, slice(None))), embedding.read((rows, slice(None)))):
            raise WeightsError(f"{folder}: the config ties the head to the embedding, but "
                               f"{head.name} differs from it")


def _shards(specs: tuple[TensorSpec, ...], itemsize: int, limit: int) -> list[list[TensorSpec]]:
    """Splits the table in order, so that no file exceeds `limit` unless one tensor does."""
    shards: list[list[TensorSpec]] = []
    room = 0
    for spec in specs:
        size = spec.size * itemsize
        if not shards or size > room:
            shards.append([])
            room = limit
        shards[-1].append(spec)
        room -= size
    return shards


def _write_shard(file: pathlib.Path, shard: list[TensorSpec], params: Params, dtype: str) -> None:
    specs = {spec.name: spec for spec in sorted(shard, key=lambda spec: spec.name)}

    def make(name: str) -> np.ndarray:
        leaf = params
        for key in specs[name].path:
            leaf = leaf[key]
        ours = np.asarray(_layer_of(leaf, specs[name].layer))
        with np.errstate(over="ignore"):    # `check_held` says it
            theirs = to_hf_layout(specs[name], ours, DTYPES[dtype])
        if ours.dtype != theirs.dtype:
            check_held(name, theirs)
        return theirs

    write_file(file, [(spec.name, spec.shape) for spec in specs.values()], dtype, make)


def _layer_of(leaf: Any, layer: tuple[int, ...]) -> Any:
    """One layer of a stacked leaf, without the others; the leaf itself where `layer` is ()."""
    for index in layer:
        # The index is an argument of the compiled slice: one program for all layers.
        leaf = (jax.lax.dynamic_index_in_dim(leaf, index, keepdims=False)
                if isinstance(leaf, jax.Array) else leaf[index])
    return leaf
