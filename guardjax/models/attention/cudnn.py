"""Fused attention of cuDNN on NVIDIA GPUs, by `jax.nn.dot_product_attention`.

The kernel never holds the scores of all heads. Who sees whom is given as a mask of one head,
[B, 1, Q, S]: by shape and type that is 1 / (2 * heads) of the float32 scores. JAX has the gradient
write one more array of that shape, the mask's own gradient, which nothing reads.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from guardjax.models.attention.rows import pad_rows
from guardjax.models.attention.tree import SegmentTree, visible

Array = jax.Array | np.ndarray

_MULTIPLE = 8       # of a row's length; the gradient with a mask wants an even one


def attend(queries: Array, keys: Array, values: Array, query_ids: Array, key_ids: Array,
           tree: SegmentTree | None, *, scale: float, implementation: str = "cudnn") -> jax.Array:
    """See `rows.Kernel`. `implementation` "xla" is the same call on any device, for tests."""
    num_queries = queries.shape[2]
    length, seen = _up(num_queries), _up(keys.shape[2])
    # What is filled up sees what the first key's token sees, and is seen by nothing.
    query_ids = pad_rows(query_ids, length, key_ids[:, :1], axis=1)
    key_ids = pad_rows(key_ids, seen, -2, axis=1)
    mask = query_ids[:, :, None] == key_ids[:, None, :]
    if tree is not None:
        mask &= visible(jnp.asarray(tree.query_table(length)), jnp.asarray(tree.key_table(seen)))
    out = jax.nn.dot_product_attention(
        *(pad_rows(x, n).swapaxes(1, 2)
          for x, n in ((queries, length), (keys, seen), (values, seen))),
        mask=mask[:, None], scale=scale, implementation=implementation)
    return out.swapaxes(1, 2)[:, :, :num_queries]


def _up(length: int) -> int:
    return -(-length // _MULTIPLE) * _MULTIPLE
