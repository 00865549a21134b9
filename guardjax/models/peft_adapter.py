"""Low-rank adapters, and reading them as PEFT saves them (`adapter_config.json` and its file)."""

from __future__ import annotations

import dataclasses
import math
import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import flax.traverse_util
import numpy as np

from guardjax.json_file import read_json
from guardjax.models.config import ModelConfig
from guardjax.models.hf_names import TensorSpec, hub_name, leaf_shape, leaf_table, tensor_table
from guardjax.models.init import Params
from guardjax.models.linear import LORA_A, LORA_B
from guardjax.models.shards import StoredTensor, WeightsError, open_file, some

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_FILE = "adapter_model.safetensors"

_NAME = re.compile(r"base_model\.model\.(?P<module>.+)\.lora_(?P<side>[AB])\.weight")
# Any other value, and the adapted kernel is not W + scale * A @ B with one rank and one scale.
_PLAIN = {"use_dora": False, "bias": "none", "fan_in_fan_out": False, "modules_to_save": None,
          "rank_pattern": {}, "alpha_pattern": {}, "layer_replication": None,
          "trainable_token_indices": None, "target_parameters": None,
          "alora_invocation_tokens": None}
# Ways to begin that leave W as it is; others (PiSSA, OLoRA, ...) take their start out of it.
_STARTS = (None, True, False, "gaussian", "eva", "orthogonal")


@dataclasses.dataclass(frozen=True)
class Adapter:
    """An adapter in our layout.

    Attributes:
      tree: a tree like the parameters that holds, where an adapted kernel [.., in, out] stands,
        "lora_a" [.., in, rank] and "lora_b" [.., rank, out], float32.
      rank: of all of them.
      alpha: the change of a kernel is `alpha / rank * lora_a @ lora_b`.
      base: what its makers trained it on, as they named it; "" if they did not.
    """

    tree: Params
    rank: int
    alpha: float
    base: str

    @property
    def num_modules(self) -> int:
        """Kernels that it adapts; of a stack, all layers."""
        flat = flax.traverse_util.flatten_dict(self.tree)
        return sum(math.prod(leaf.shape[:-2]) for path, leaf in flat.items() if path[-1] == LORA_A)


def load_peft(path: str | os.PathLike, cfg: ModelConfig) -> Adapter:
    """Reads a directory that PEFT's `save_pretrained` wrote, for a model of `cfg`.

    Raises:
      FileNotFoundError: a file is missing.
      WeightsError: pickled or broken weights; another kind of adapter; a setting that is not
        supported; a module that the model does not have, or a factor of another shape.
    """
    folder = pathlib.Path(path)
    if not (folder / ADAPTER_CONFIG).is_file():
        raise FileNotFoundError(f"{folder} has no {ADAPTER_CONFIG}; it is no adapter of PEFT")
    rank, alpha, base = _settings(read_json(folder / ADAPTER_CONFIG, WeightsError), folder)
    file = folder / ADAPTER_FILE
    if not file.is_file():
        if (folder / "adapter_model.bin").is_file():
            raise WeightsError(f"{folder} has only pickled weights (adapter_model.bin), which can "
                               "run code when they are read; save it with safe_serialization=True")
        raise FileNotFoundError(f"{folder} has no {ADAPTER_FILE}")
    kernels = {spec.name: spec for spec in tensor_table(cfg)
               if spec.is_kernel and len(spec.shape) == 2}
    leaves = leaf_table(cfg)
    flat: dict[tuple[str, ...], np.ndarray] = {}
    found: set[tuple[str | int, ...]] = set()
    with open_file(file) as tensors:
        for tensor in tensors:
            spec, side = _target(tensor, cfg, kernels, file)
            height, width = spec.our_shape
            wanted = (rank, height) if side == "A" else (width, rank)
            if tensor.shape != wanted:
                raise WeightsError(f"{file}: {tensor.name} has shape {tensor.shape}, expected "
                                   f"{wanted} (rank {rank} on a kernel of {spec.shape})")
            factor = np.ascontiguousarray(tensor.read().T, np.float32)
            key = (*spec.path[:-1], f"lora_{side.lower()}")
            if spec.layer:      # layers that the adapter leaves out are not changed: zeros
                stack = leaf_shape(leaves[spec.path])[:len(spec.layer)]
                flat.setdefault(key, np.zeros((*stack, *factor.shape), np.float32))
                flat[key][spec.layer] = factor
            else:
                flat[key] = factor
            found.add((*spec.path[:-1], *spec.layer, f"lora_{side.lower()}"))
    halves = sorted("/".join(map(str, key)) for key in found
                    if (*key[:-1], LORA_B if key[-1] == LORA_A else LORA_A) not in found)
    if halves or not flat:
        raise WeightsError(f"{file} has only one factor of {some(halves)}" if halves
                           else f"{file} is empty")
    return Adapter(flax.traverse_util.unflatten_dict(flat), rank, alpha, base)


def _settings(config: Mapping[str, Any], folder: pathlib.Path) -> tuple[int, float, str]:
    """(rank, alpha, base)"""
    where = folder / ADAPTER_CONFIG
    if config.get("peft_type") != "LORA":
        raise WeightsError(f"{where}: peft_type is {config.get('peft_type')!r}; only 'LORA' can be "
                           "read")
    for key, plain in _PLAIN.items():
        if config.get(key) not in (None, plain):
            raise WeightsError(f"{where}: {key} is {config[key]!r}, which is not supported; merge "
                               "it with PEFT (merge_and_unload) and load the result")
    if (start := config.get("init_lora_weights")) not in _STARTS:
        raise WeightsError(f"{where}: init_lora_weights is {start!r}, which changes the base's own "
                           "weights; merge it with PEFT (merge_and_unload) and load the result")
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if (type(rank) is not int or rank < 1 or type(alpha) not in (int, float)
            or not 0 < alpha < math.inf):
        raise WeightsError(f"{where}: r is {rank!r} and lora_alpha {alpha!r}; both must be "
                           "positive numbers")
    if config.get("use_rslora"):        # arXiv 2312.03732: alpha / sqrt(rank)
        alpha = alpha * math.sqrt(rank)
    return rank, float(alpha), str(config.get("base_model_name_or_path") or "")


def _target(tensor: StoredTensor, cfg: ModelConfig, kernels: Mapping[str, TensorSpec],
            file: pathlib.Path) -> tuple[TensorSpec, str]:
    """The kernel that a factor adapts, and which factor it is."""
    if ".base_layer." in tensor.name:
        raise WeightsError(f"{file}: {tensor.name} is a whole layer and no low-rank factor; save "
                           "the adapter with save_embedding_layers=False")
    match = _NAME.fullmatch(tensor.name)
    spec = kernels.get(hub_name(cfg, f"{match['module']}.weight")) if match else None
    if spec is None:
        raise WeightsError(f"{file}: {tensor.name} is no factor of a kernel of this model; the "
                           "adapter is of another model or kind")
    return spec, match["side"]
