"""Splash attention on TPUs: JAX's Pallas kernel, which skips the blocks in which nothing is seen.

The tree of segments is known when the program is built, so answers cost their own past and the
prompt, not each other. Padding and the frames of pictures are known later, and are segment ids.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.pallas.ops.tpu import splash_attention as library

from guardjax.models.attention.backends import AttentionError
from guardjax.models.attention.rows import pad_rows
from guardjax.models.attention.tree import SegmentTree, visible

Array = jax.Array | np.ndarray

_LANES = 128                # a row's length is a multiple of it
_BLOCKS = (512, 256, 128)   # sides of a block, the first that divides the row


def attend(queries: Array, keys: Array, values: Array, query_ids: Array, key_ids: Array,
           tree: SegmentTree | None, *, scale: float, interpret: bool = False) -> jax.Array:
    """See `rows.Kernel`. `interpret` runs the kernel step by step on any device, for tests.

    Raises:
        AttentionError: the program is for several devices.
    """
    _refuse_mesh()
    num_queries = queries.shape[2]
    length, seen = _up(num_queries), _up(keys.shape[2])
    kernel = _kernel(tree, queries.shape[1], length, seen, interpret)
    # What is filled up sees what the first key's token sees, and is seen by nothing.
    ids = library.SegmentIds(pad_rows(query_ids, length, key_ids[:, :1], axis=1),
                             pad_rows(key_ids, seen, -2, axis=1))
    scaled = (queries.astype(jnp.float32) * scale).astype(queries.dtype)
    out = jax.vmap(kernel)(pad_rows(scaled, length), pad_rows(keys, seen), pad_rows(values, seen),
                           ids)
    return out[:, :, :num_queries]


@functools.lru_cache(maxsize=64)
def _kernel(tree: SegmentTree | None, heads: int, length: int, seen: int,
            interpret: bool) -> library.SplashAttentionKernel:
    """The plan of blocks for one shape of row, the same for every layer."""
    mask = library.FullMask((length, seen)) if tree is None else _TreeMask(tree, length, seen)
    rows, columns = _block(length), _block(seen)
    blocks = library.BlockSizes(
        block_q=rows, block_kv=columns, block_q_dkv=rows, block_kv_dkv=columns, block_q_dq=rows,
        block_kv_dq=columns)
    # The plan is arrays; made while a program is traced they would belong to that program.
    with jax.ensure_compile_time_eval():
        return library.make_splash_mha_single_device(
            library.MultiHeadMask([mask] * heads), block_sizes=blocks, interpret=interpret)


class _TreeMask(library.Mask):
    """The tree, asked block by block."""

    def __init__(self, tree: SegmentTree, length: int, seen: int) -> None:
        self._key = (tree, length, seen)
        self._queries, self._keys = tree.query_table(length), tree.key_table(seen)

    @property
    def shape(self) -> tuple[int, int]:
        return self._queries.shape[1], self._keys.shape[1]

    def __getitem__(self, index: tuple[slice, slice]) -> np.ndarray:
        rows, columns = index
        return visible(self._queries[:, rows], self._keys[:, columns])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _TreeMask) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)


def _refuse_mesh() -> None:
    mesh = jax.sharding.get_abstract_mesh()
    if not mesh.empty and mesh.size > 1:
        raise AttentionError(f"attention='splash' computes on one device so far, and the mesh has "
                             f"{mesh.size}: use a mesh of one, or choose attention='xla'")


def _up(length: int) -> int:
    return -(-length // _LANES) * _LANES


def _block(length: int) -> int:
    return next(side for side in _BLOCKS if length % side == 0)
