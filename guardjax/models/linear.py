"""Linear layers, and what may stand in place of a kernel or beside it in the parameters.

* `kernel` [D, F]: as it is;
* `kernel_nf4`, instead: four bits an element (`guardjax.models.nf4`), made whole where it is used
  and again in the backward pass, so that under `scan_layers` one layer's kernels at a time exist
  (unrolled, a compiler may make all of them first: on a CPU it does);
* `kernel_t` [F, D], instead: turned, for a CPU that only asks (`guardjax.models.turned`);
* `lora_a` [D, r] and `lora_b` [r, F], beside any of them: `(x @ lora_a) @ lora_b` is added. No
  kernel with the change in it is ever made, nor a gradient of that size.

A layer finds them in its parameters; the model itself never hears of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from flax import linen as nn

from guardjax.models.turned import KERNEL_T, product_turned

Array = jax.Array | np.ndarray

KERNEL, NF4, LORA_A, LORA_B = "kernel", "kernel_nf4", "lora_a", "lora_b"
_MATRICES = (KERNEL, LORA_A, LORA_B, "embedding")


class Linear(nn.Module):
    """`x @ kernel + bias` over the last axis. Starting values are `init.py`'s business."""

    features: int
    use_bias: bool
    dtype: str

    @nn.compact
    def __call__(self, x: Array) -> jax.Array:
        zeros = nn.initializers.zeros
        leaves = {name: self.get_variable("params", name)
                  for name in (NF4, KERNEL_T, LORA_A, LORA_B)
                  if self.has_variable("params", name)}
        if not leaves.keys() & {NF4, KERNEL_T}:
            leaves[KERNEL] = self.param(KERNEL, zeros, (x.shape[-1], self.features))
        y = product(x.astype(self.dtype), leaves, self.dtype)
        if self.use_bias:
            y = y + self.param("bias", zeros, (self.features,)).astype(self.dtype)
        return y


def product(x: Array, leaves: Mapping[str, Any], dtype: str,
            out_dtype: Any = None) -> jax.Array:
    """x [..., D] times the matrix that `leaves` say: [..., F].

    Args:
      x: of any float type.
      leaves: a linear layer's parameters; a bias is not looked at.
      dtype: of the factors.
      out_dtype: of the sums and of the result; that of the factors if None.
    """
    x = x.astype(dtype)
    if NF4 in leaves:
        # What is kept for the backward pass is x and the four bits, not the kernel.
        y = jax.checkpoint(lambda x, stored: _product(x, _whole(stored), out_dtype))(
            x, leaves[NF4])
    elif KERNEL_T in leaves:
        y = product_turned(x, leaves[KERNEL_T], out_dtype)
    else:
        y = _product(x, leaves[KERNEL], out_dtype)
    if LORA_A in leaves:
        y = y + _product(_product(x, leaves[LORA_A]), leaves[LORA_B], out_dtype)
    return y


def rounded(params: Mapping[str, Any], dtype: str) -> dict[str, Any]:
    """`params` with matrices and tables in `dtype`, where that takes less room.

    Every use rounds them so, and the numbers stay; memory halves. Not for a gradient, which would
    be of what was rounded. A compiled rollout has no use for it: the compiler rounds before the
    loop by itself.
    """
    def of(name: str, leaf: Any) -> Any:
        if isinstance(leaf, Mapping):
            return rounded(leaf, dtype)
        shrinks = name in _MATRICES and np.dtype(dtype).itemsize < leaf.dtype.itemsize
        return leaf.astype(dtype) if shrinks else leaf

    return {name: of(name, leaf) for name, leaf in params.items()}


def ordinary_shapes(params: Mapping[str, Any]) -> dict[str, Any]:
    """`params` with the shape of a kernel, float32, in place of each that is in four bits."""
    shapes: dict[str, Any] = {}
    for name, value in params.items():
        if isinstance(value, Mapping):
            shapes[name] = ordinary_shapes(value)
        elif name == NF4:
            shapes[KERNEL] = jax.ShapeDtypeStruct(value.shape, np.float32,
                                                  sharding=value.scale.sharding)
        else:
            shapes[name] = value
    return shapes


def _whole(stored: Any) -> jax.Array:
    from guardjax.models.nf4 import dequantise  # an extra: nobody else needs it

    return dequantise(stored)


def _product(x: Array, kernel: Array, out_dtype: Any = None) -> jax.Array:
    """[..., D] with [D, F], in the type of x, as one matrix product.

    With the leading axes flattened, the gradient of the kernel contracts one axis instead of
    several: measured three times faster on a CPU.
    """
    flat = jax.lax.dot_general(x.reshape(-1, x.shape[-1]), kernel.astype(x.dtype),
                               (((1,), (0,)), ((), ())), preferred_element_type=out_dtype)
    return flat.reshape(*x.shape[:-1], kernel.shape[-1])
