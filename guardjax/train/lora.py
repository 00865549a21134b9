"""Low-rank adapters (LoRA, arXiv 2106.09685): a kernel W acts as `W + alpha / rank * A @ B`.

While they are trained the factors stand beside the kernels (`attach_adapters`), and a linear layer
adds `(x @ A) @ B`: what is saved is the optimiser's moments, and the gradients and the copies of
whole kernels. Afterwards they are added to the weights (`apply_adapters`).

Adapters are a few lines of our own although qwix has them: it adds them by patching functions of
JAX and byte code while a model runs, its names say nothing of our tree, and on today's Flax every
use of it warns that it is outdated. Its arrays of four bits are used (`guardjax.models.nf4`).
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from guardjax.models.linear import KERNEL, LORA_A, LORA_B, NF4
from guardjax.train.config import LoraConfig
from guardjax.train.state import Params
from guardjax.train.config import unknown_name

A, B = LORA_A, LORA_B       # they stand where the module's "kernel" stands
_Change = Callable[[Params, Params], Params]      # (module, its factors) -> module


def target_kernels(params: Params, config: LoraConfig) -> dict[str, Any]:
    """Returns module path -> kernel for every module that a target names.

    A target is a regular expression over the end of a module's path, from a whole name on:
    "q_proj" takes every module of that name, "model/.*/q_proj" the decoder's alone. Kernels are
    [in, out], or [.., in, out] for a stack of layers; only shapes are read, so that
    `jax.ShapeDtypeStruct` will do.

    Raises:
      ValueError: if a target names no module with such a kernel, or `rank` is more than a kernel's
        smaller side.
    """
    kernels = dict(_kernels(params, ""))
    chosen: set[str] = set()
    for target in config.targets:
        pattern = re.compile(rf"(?:^|.*/)(?:{target})")
        found = [path for path in kernels if pattern.fullmatch(path)]
        if not found:
            names = {path.rpartition("/")[2] for path in kernels}
            raise ValueError(unknown_name("adapter target in lora.targets", target, names)
                             + " (modules with a matrix, outside of what is frozen)")
        chosen.update(found)
    for path in sorted(chosen):
        height, width = kernels[path].shape[-2:]
        if config.rank > min(height, width):
            raise ValueError(
                f"lora.rank={config.rank} is more than the kernel of {path}, {height} x {width}, "
                f"can use; set it to {min(height, width)} or less, or leave the module out of "
                "lora.targets")
    return {path: kernel for path, kernel in kernels.items() if path in chosen}


def init_adapters(params: Params, config: LoraConfig, key: jax.Array) -> Params:
    """Returns the adapters before their first update, which change nothing: every B is zero.

    Each A draws from the key and its own path, so that it does not depend on the other targets.

    Args:
      params: whole parameters, or those that may be adapted.
      config: rank and targets; the rank must be positive.
      key: a typed PRNG key.

    Returns:
      A tree like `params` that holds, where a targeted kernel [.., in, out] stands, "lora_a"
      [.., in, rank], normal with variance 1 / in, and "lora_b" [.., rank, out]; float32.

    Raises:
      ValueError: as `target_kernels`.
    """
    adapters: dict[str, Any] = {}
    for path, kernel in target_kernels(params, config).items():
        *stack, height, width = kernel.shape
        own_key = jax.random.fold_in(key, zlib.crc32(path.encode()))
        module = adapters
        for name in path.split("/"):
            module = module.setdefault(name, {})
        module[A] = jax.random.normal(own_key, (*stack, height, config.rank)) / np.sqrt(height)
        module[B] = jnp.zeros((*stack, config.rank, width))
    return adapters


def attach_adapters(params: Params, adapters: Params, config: LoraConfig) -> Params:
    """Returns `params` with the factors beside their kernels, as a forward pass takes them.

    Pure, for use inside `jit` and under a gradient: nothing of a kernel's size is made. The scale
    is in B. Without adapters (`{}`) the result is `params`.

    Raises:
      ValueError: if an adapter has no kernel in `params`.
    """
    scale = config.alpha / config.rank
    return _changed(params, adapters, lambda module, factors: {
        **module, A: factors[A], B: scale * factors[B]}, "")


def apply_adapters(params: Params, adapters: Params, config: LoraConfig) -> Params:
    """Returns `params` with every adapted kernel W replaced by `W + alpha / rank * A @ B`.

    Pure, for use inside `jit` and under a gradient. The sum is computed in float32 and rounded to
    W's dtype; all other leaves are passed on as they are. Without adapters (`{}`) the result is
    `params`.

    Raises:
      ValueError: if an adapter has no kernel in `params`.
    """
    scale = config.alpha / config.rank

    def add(module: Params, factors: Params) -> Params:
        kernel = module[KERNEL]
        # The default of some accelerators rounds the factors to bfloat16 first.
        change = jnp.matmul(factors[A], factors[B], precision=jax.lax.Precision.HIGHEST)
        adapted = kernel.astype(jnp.float32) + scale * change
        return {**module, KERNEL: adapted.astype(kernel.dtype)}

    return _changed(params, adapters, add, "")


def _changed(params: Params, adapters: Params, change: _Change, path: str) -> Params:
    """`params` with every module that has factors changed."""
    if A in adapters:
        if KERNEL not in params and NF4 not in params:
            raise ValueError(f"the adapter of {path} has no kernel there: it is of another model")
        return change(params, adapters)
    changed = dict(params)
    for name, part in adapters.items():
        here = f"{path}/{name}" if path else name
        below = params.get(name)
        if not isinstance(below, Mapping):
            raise ValueError(f"the adapters of {here} have no module there: they are of another "
                             "model")
        changed[name] = _changed(below, part, change, here)
    return changed


def _kernels(tree: Params, path: str) -> Iterator[tuple[str, Any]]:
    """Yields (module path, kernel) of every kernel that is a matrix or a stack of them."""
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _kernels(value, f"{path}/{name}" if path else name)
        elif name in (KERNEL, NF4) and path and len(value.shape) >= 2:
            yield path, value
