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
from guardjax.models.init import param_shapes
from guardjax.models.stacking import place

HEAD = "lm_head.weight"
EMBEDDING = "model.embed_tokens.weight"

_BLOCK = 32

# The names that some releases of transformers give the modules in memory.
_ALIASES = (("model.language_model.", "model."), ("model.visual.", "visual."))


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
        """Whether it is [in, out] here and [out, in] there (a patch embed: [out, C, t, p, p])."""
        return self.path[-1] == "kernel"

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
        rows.append(TensorSpec(here, _hf_name(path), _hf_shape(cfg, path, leaf.shape), layer))
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


def hub_name(name: str) -> str:
    """The hub's name of a tensor that is stored under its name in memory."""
    for old, new in _ALIASES:
        if name.startswith(old):
            return new + name[len(old):]
    return name


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
