"""Kernels in four bits (NF4, arXiv 2305.14314) for a base that is not trained. Extra `qlora`.

The numbers are qwix's: sixteen levels that are equally likely under a normal distribution, and one
float32 scale for each `BLOCK` inputs of an output: 4.5 bits an element. qwix's functions on arrays
are used and not its model wrappers, which patch functions of JAX while a model runs.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from guardjax.models.linear import KERNEL, NF4

try:
    import qwix
except ImportError as error:
    raise ImportError("a base in four bits needs qwix: install guardjax[qlora]") from error

BLOCK = 64      # as in the paper


def quantise(params: Mapping[str, Any], chosen: Callable[[str], bool]) -> dict[str, Any]:
    """Returns `params` with kernels in four bits, as the model takes them too.

    Args:
      params: the parameters; other leaves are passed on as they are.
      chosen: whether the module of a path, such as "model/layers_0/mlp/up_proj", is wanted. Of
        those, a kernel whose inputs are no whole number of blocks stays as it is.
    """
    return _changed(params, "", lambda path, name, leaf: (
        (NF4, _quantised(leaf)) if fits(f"{path}/{name}", leaf.shape, chosen) else (name, leaf)))


def quantise_one_by_one(shape: tuple[int, ...],
                        kernels: Iterable[tuple[tuple[int, ...], np.ndarray]]) -> qwix.QArray:
    """What `quantise` makes of a kernel [.., in, out], given layer by layer.

    Args:
      shape: of the whole.
      kernels: (index in the leading axes, kernel [in, out]) of every layer; the next is asked for
        when the one before is in four bits.
    """
    made = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype),
                        jax.eval_shape(_quantised, jax.ShapeDtypeStruct(shape, jnp.float32)))
    for index, kernel in kernels:
        made = jax.block_until_ready(_put(made, index, kernel))
    return made


def fits(path: str, shape: tuple[int, ...], chosen: Callable[[str], bool]) -> bool:
    """Whether `quantise` would put the leaf of a path and a shape in four bits."""
    module, _, name = path.rpartition("/")
    return (name == KERNEL and len(shape) >= 2 and shape[-2] % BLOCK == 0
            and bool(chosen(module)))


def dequantised(params: Mapping[str, Any]) -> dict[str, Any]:
    """Returns `params` with ordinary kernels, float32, where they were in four bits."""
    return _changed(params, "", lambda path, name, leaf: (
        (KERNEL, dequantise(leaf)) if name == NF4 else (name, leaf)))


def dequantise(stored: qwix.QArray) -> jax.Array:
    """A kernel [.., in, out], float32, from its four bits."""
    return qwix.dequantize(stored)


@jax.jit    # in one program the distances to the sixteen levels are never written out
def _quantised(kernel: jax.Array) -> qwix.QArray:
    """Leading axes are a stack of kernels."""
    *stack, _, _ = range(kernel.ndim)
    return qwix.quantize(kernel.astype(jnp.float32), "nf4",
                         channelwise_axes=(*stack, kernel.ndim - 1),
                         tiled_axes={kernel.ndim - 2: BLOCK})


@functools.partial(jax.jit, donate_argnums=0)
def _put(stack: qwix.QArray, index: tuple[int, ...], kernel: jax.Array) -> qwix.QArray:
    """`stack` with one of its kernels; in place."""
    return jax.tree.map(lambda whole, one: whole.at[index].set(one), stack, _quantised(kernel))


def _changed(tree: Mapping[str, Any], path: str,
             change: Callable[[str, str, Any], tuple[str, Any]]) -> dict[str, Any]:
    """The tree with (name, leaf) of every module changed."""
    out = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            out[name] = _changed(value, f"{path}/{name}" if path else name, change)
        else:
            new_name, new_value = change(path, name, value)
            out[new_name] = new_value
    return out
