"""One table of names, used in both directions: where a tensor is here and what the hub calls it.

Names are those of the hub (`model.layers.0...`, `visual...`), which `save_pretrained` writes
whatever a release calls its modules in memory.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections.abc import Sequence

import flax.traverse_util
import numpy as np

from guardjax.models.config import ModelConfig
from guardjax.models.families import FAMILIES
from guardjax.models.family import renamed
from guardjax.models.init import param_shapes
from guardjax.models.stacking import place

_HEAD, EMBEDDING = ("lm_head", "kernel"), ("model", "embed_tokens", "embedding")
_PATCHES = ("patch_embed", "patch_embedding")       # convolutions there
_MEMBER = re.compile(r"^(layers|blocks|mlp)_(\d+)$")    # of a list of modules there

_BLOCK = 32


@dataclasses.dataclass(frozen=True)
class TensorSpec:
    """One row of the table: where a tensor is here, its name and shape there.

    Attributes:
      path: of the leaf in our tree.
      name: there.
      shape: there.
      layer: indices of the tensor in the leading axes of a leaf that stacks layers; else ().
    """

    path: tuple[str, ...]
    name: str
    shape: tuple[int, ...]
    layer: tuple[int, ...] = ()

    @property
    def is_kernel(self) -> bool:
        """Whether it is [in, out] here and [out, in] there (of patches: [out, C, .., p, p])."""
        return self.path[-1] == "kernel"

    @property
    def is_linear(self) -> bool:
        """Whether it is the kernel of a linear layer, and not of patches."""
        return self.is_kernel and len(self.shape) == 2

    @property
    def our_shape(self) -> tuple[int, ...]:
        """Of the tensor here, without the leading axes of a stack."""
        return (math.prod(self.shape[1:]), self.shape[0]) if self.is_kernel else self.shape

    @property
    def size(self) -> int:
        """Elements."""
        return math.prod(self.shape)


@functools.lru_cache(maxsize=8)     # tracing a model of 80 layers takes seconds
def tensor_table(cfg: ModelConfig) -> tuple[TensorSpec, ...]:
    """All tensors of a model of any size, without allocating them.

    Their order is that of the unrolled model, so that files do not depend on `scan_layers`.
    """
    flat = flax.traverse_util.flatten_dict(
        param_shapes(dataclasses.replace(cfg, scan_layers=False)))
    rows = []
    for path, leaf in sorted(flat.items()):
        here, layer = place(cfg, path)
        rows.append(TensorSpec(here, _hf_name(cfg, path), _hf_shape(cfg, path, leaf.shape), layer))
    return tuple(rows)


def leaf_table(cfg: ModelConfig) -> dict[tuple[str, ...], tuple[TensorSpec, ...]]:
    """Path of every leaf here -> its tensors: one, or all layers of a stack in order."""
    leaves: dict[tuple[str, ...], list[TensorSpec]] = {}
    for spec in tensor_table(cfg):
        leaves.setdefault(spec.path, []).append(spec)
    return {path: tuple(sorted(specs, key=lambda spec: spec.layer))
            for path, specs in leaves.items()}


def leaf_shape(specs: Sequence[TensorSpec]) -> tuple[int, ...]:
    """The shape of a leaf here, of one value of `leaf_table`."""
    return (*(n + 1 for n in specs[-1].layer), *specs[0].our_shape)


def to_hf_layout(spec: TensorSpec, array: np.ndarray, dtype: np.dtype | None = None) -> np.ndarray:
    """Our array in Hugging Face's shape: linear weights are [out, in], the patch embed a conv.

    `dtype` is the type of the result, that of `array` if None.
    """
    dtype = array.dtype if dtype is None else dtype
    if not spec.is_kernel:
        return np.ascontiguousarray(array, dtype)
    turned = np.empty(array.shape[::-1], dtype)
    copy_turned(array, turned)
    return turned.reshape(spec.shape)


def from_hf_layout(spec: TensorSpec, array: np.ndarray) -> np.ndarray:
    """The inverse of `to_hf_layout`: kernels are [in, out], a patch is one flat vector."""
    return array.reshape(spec.shape[0], -1).T if spec.is_kernel else array


def copy_turned(source: np.ndarray, target: np.ndarray) -> None:
    """`target[i, j] = source[j, i]`, in blocks that a cache holds: four times as fast as in one."""
    for start in range(0, len(source), _BLOCK):
        target[:, start:start + _BLOCK] = source[start:start + _BLOCK].T


def hub_name(cfg: ModelConfig, name: str) -> str:
    """The hub's name of a tensor that is stored under its name in memory."""
    return FAMILIES[cfg.family].hub_name(name)


def memory_name(cfg: ModelConfig, name: str) -> str:
    """The name that transformers gives a tensor of the hub in memory: the inverse of `hub_name`."""
    return renamed(name, FAMILIES[cfg.family].memory)


def tied_names(cfg: ModelConfig) -> tuple[str, str]:
    """(hub name of the head, of the embedding), which are one tensor where the config ties them."""
    return _hf_name(cfg, _HEAD), _hf_name(cfg, EMBEDDING)


def _hf_name(cfg: ModelConfig, path: tuple[str, ...]) -> str:
    """`model/layers_0/mlp/up_proj/kernel` is `model.layers.0.mlp.up_proj.weight`."""
    *modules, leaf = path
    dotted = [_MEMBER.sub(r"\1.\2", module) for module in modules]
    if modules[-1] == "patch_embed":
        dotted.append("proj")
    dotted.append("weight" if leaf in ("kernel", "scale", "embedding") else leaf)
    return renamed(".".join(dotted), FAMILIES[cfg.family].names)


def _hf_shape(cfg: ModelConfig, path: tuple[str, ...], shape: tuple[int, ...]) -> tuple[int, ...]:
    if path[-1] != "kernel":
        return shape
    if path[-2] in _PATCHES:
        return shape[1], *cfg.vision.patch_shape
    return shape[::-1]
