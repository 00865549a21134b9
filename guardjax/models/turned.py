"""Matrices as one CPU reads them best: [out, in], the way files have them, under `kernel_t`.

A step of decoding multiplies a few rows with every matrix, and no cache holds these. XLA's product
[rows, in] x [in, out] copies a matrix into blocks first; with the matrix as the left factor,
[out, in] x [in, rows], it is read once, from end to end, and what is copied are the rows:
`benchmarks/turned.py`. Left to itself XLA makes the one product into the other, hence the barriers.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array | np.ndarray

KERNEL_T = "kernel_t"
_LARGE = 2**21          # bytes; smaller ones stay in a core's cache, where it makes no difference
_FEW_ROWS = 128         # more are as fast without, and need not be turned


def helps(dtype: str) -> bool:
    """Whether a model that computes in `dtype` here is better read so: on a CPU, in float32."""
    return jax.default_backend() == "cpu" and dtype == "float32"


def is_large(size: int, dtype: np.dtype) -> bool:
    """Whether a matrix of that many numbers is worth it."""
    return size * dtype.itemsize >= _LARGE


def product_turned(x: Array, kernel: Array, out_dtype: jnp.dtype | None = None) -> jax.Array:
    """x [..., D] times the transpose of kernel [F, D], in the type of x: [..., F]."""
    kernel, rows = kernel.astype(x.dtype), x.reshape(-1, x.shape[-1])
    if len(rows) <= _FEW_ROWS:
        columns = jax.lax.optimization_barrier(rows.T)
        y = jax.lax.optimization_barrier(
            jnp.matmul(kernel, columns, preferred_element_type=out_dtype)).T
    else:
        y = jnp.matmul(rows, kernel.T, preferred_element_type=out_dtype)
    return y.reshape(*x.shape[:-1], -1)
