"""Adapters written in PEFT's format, to be loaded over the base elsewhere or merged by `export`."""

from __future__ import annotations

import os
import pathlib
import tempfile

import flax.traverse_util
import numpy as np

from guardjax.json_file import write_json
from guardjax.models.config import ModelConfig
from guardjax.models.hf_names import TensorSpec, memory_name, tensor_table
from guardjax.models.init import Params
from guardjax.models.linear import LORA_A, LORA_B
from guardjax.models.peft_adapter import ADAPTER_CONFIG, ADAPTER_FILE, Adapter
from guardjax.models.shards import WeightsError, some, write_file


def save_peft(adapter: Adapter, cfg: ModelConfig, path: str | os.PathLike) -> None:
    """Writes a directory that PEFT loads over the model of `cfg`. It replaces one that is there.

    Modules have the names that transformers gives them in memory, as PEFT writes them; each is
    named in full, so that PEFT adapts these and no others.

    Raises:
      WeightsError: a factor of a module that PEFT cannot adapt this way, or of another model.
    """
    target = pathlib.Path(path)
    specs = adapted(adapter.tree, cfg)
    modules = {memory_name(cfg, spec.name).removesuffix(".weight"): spec for spec in specs}
    factors = {f"base_model.model.{module}.lora_{side}.weight": (spec, side)
               for module, spec in modules.items() for side in "AB"}
    shapes = {name: (adapter.rank, spec.our_shape[0]) if side == "A"
              else (spec.our_shape[1], adapter.rank) for name, (spec, side) in factors.items()}

    def make(name: str) -> np.ndarray:
        spec, side = factors[name]
        module = adapter.tree
        for key in spec.path[:-1]:
            module = module[key]
        factor = np.asarray(module[LORA_A if side == "A" else LORA_B][spec.layer], np.float32)
        return np.ascontiguousarray(factor.T)

    alpha = int(adapter.alpha) if adapter.alpha == int(adapter.alpha) else adapter.alpha
    config = {"peft_type": "LORA", "task_type": None, "r": adapter.rank, "lora_alpha": alpha,
              "lora_dropout": 0.0, "use_rslora": False, "inference_mode": True,
              "init_lora_weights": True, "base_model_name_or_path": adapter.base or None,
              "target_modules": sorted(modules), "bias": "none", "fan_in_fan_out": False,
              "modules_to_save": None, "rank_pattern": {}, "alpha_pattern": {}, "use_dora": False}
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as folder:
        staging = pathlib.Path(folder) / target.name
        staging.mkdir()
        write_json(staging / ADAPTER_CONFIG, config)
        write_file(staging / ADAPTER_FILE, sorted(shapes.items()), "float32", make)
        if target.exists():
            target.rename(pathlib.Path(folder) / "old")
        staging.rename(target)


def adapted(tree: Params, cfg: ModelConfig) -> list[TensorSpec]:
    """The kernels that a tree of factors (arrays or shapes) adapts, of stacks every layer.

    Raises:
      WeightsError: a module that the model does not have or whose factors PEFT writes otherwise.
    """
    paths = {path[:-1] for path in flax.traverse_util.flatten_dict(tree)}
    specs = [spec for spec in tensor_table(cfg)
             if spec.is_kernel and len(spec.shape) == 2 and spec.path[:-1] in paths]
    if odd := sorted("/".join(path) for path in paths - {spec.path[:-1] for spec in specs}):
        raise WeightsError(f"factors of {some(odd)} cannot be saved for PEFT: elsewhere that is no "
                           "linear layer of this model")
    return specs
