"""Splash attention on TPUs: JAX's Pallas kernel, which skips the blocks in which nothing is seen.

The tree of segments is known when the program is built, so answers cost their own past and the
prompt, not each other. Padding and the frames of pictures are known later, and are segment ids.

Heads of any size that `backends` lets pass are compiled as they are: the vision tower's 80 numbers
need no filling up to 128.
"""

from __future__ import annotations

import concurrent.futures
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.pallas.ops.tpu import splash_attention as library

from guardjax.models.attention.blocks import block_side, fill_up
from guardjax.models.attention.on_mesh import on_each_device
from guardjax.models.attention.rows import pad_rows
from guardjax.models.attention.tree import SegmentTree, Spans, visible

Array = jax.Array | np.ndarray


_PLACE_BITS = 15    # two places of a row fit into an int32


class Plan(NamedTuple):
    """The kernel for one shape of row, and how much of the row it visits."""

    kernel: library.SplashAttentionKernel
    visits: int             # blocks of a head that are computed
    masked: int             # of these, the blocks in which not all is seen
    block: tuple[int, int]  # queries and keys of a block


def attend(queries: Array, keys: Array, values: Array, query_ids: Array, key_ids: Array,
           tree: SegmentTree | None, *, scale: float, interpret: bool = False) -> jax.Array:
    """See `rows.Kernel`; on a mesh, see `on_mesh`. Rows without a tree are taken for pictures.

    `interpret` runs the kernel step by step on any device, for tests.

    Raises:
        AttentionError: an axis of the mesh is not Auto.
    """
    kernel = functools.partial(_attend, tree=tree, scale=scale, interpret=interpret)
    return on_each_device(kernel, queries, keys, values, query_ids, key_ids,
                          pictures=tree is None)


def _attend(queries: Array, keys: Array, values: Array, query_ids: Array, key_ids: Array, *,
            tree: SegmentTree | None, scale: float, interpret: bool) -> jax.Array:
    """The rows and heads of one device."""
    num_queries = queries.shape[2]
    length, seen = fill_up(num_queries), fill_up(keys.shape[2])
    plan = _plan(tree, queries.shape[1], length, seen, interpret)
    # What is filled up sees what the first key's token sees, and is seen by nothing.
    ids = library.SegmentIds(pad_rows(query_ids, length, key_ids[:, :1], axis=1),
                             pad_rows(key_ids, seen, -2, axis=1))
    scaled = (queries.astype(jnp.float32) * scale).astype(queries.dtype)
    # The only place where a compiled program says what its kernels compute: see `scale.kernels`.
    with jax.named_scope(f"splash_{plan.visits}_blocks_{plan.masked}_masked_"
                         f"{plan.block[0]}x{plan.block[1]}"):
        out = jax.vmap(plan.kernel)(pad_rows(scaled, length), pad_rows(keys, seen),
                                    pad_rows(values, seen), ids)
    return out[:, :, :num_queries]


@functools.lru_cache(maxsize=64)
def _plan(tree: SegmentTree | None, heads: int, length: int, seen: int, interpret: bool) -> Plan:
    """The plan of blocks for one shape of row, the same for every layer and every device."""
    mask = library.FullMask((length, seen)) if tree is None else _tree_mask(tree, length, seen)
    rows, columns = block_side(length), block_side(seen)
    blocks = library.BlockSizes(
        block_q=rows, block_kv=columns, block_q_dkv=rows, block_kv_dkv=columns, block_q_dq=rows,
        block_kv_dq=columns)
    make = functools.partial(
        library.make_splash_mha_single_device, library.MultiHeadMask([mask] * heads),
        block_sizes=blocks, interpret=interpret)
    # The library makes arrays, which here would belong to the program that is traced and to its
    # mesh, whose devices may not be there. A thread has neither; NumPy's arrays suit every program.
    with concurrent.futures.ThreadPoolExecutor(1) as thread:
        kernel = jax.tree.map(np.asarray, thread.submit(make).result())
    kinds = kernel.fwd_mask_info.block_mask     # 0: nothing is seen, 1: a part, 2: all
    if kinds is None:
        return Plan(kernel, (length // rows) * (seen // columns), 0, (rows, columns))
    per_head = kinds[0]     # alike for all heads
    return Plan(kernel, int((per_head > 0).sum()), int((per_head == 1).sum()), (rows, columns))


def _tree_mask(tree: SegmentTree, length: int, seen: int) -> _TreeMask:
    """A mask that the kernel computes where the tree's spans and the row's length allow it."""
    spans = tree.spans(length)
    if spans is None or seen > 2**_PLACE_BITS:
        return _TreeMask(tree, length, seen)
    return _SpansMask(tree, length, seen, spans)


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


class _SpansMask(_TreeMask):
    """A tree whose mask the kernel computes from one number a query, and reads no blocks of it.

    The library gives `q_sequence` of a query and the place of a key to `mask_function`, in NumPy
    and in the kernel.
    """

    def __init__(self, tree: SegmentTree, length: int, seen: int, spans: Spans) -> None:
        super().__init__(tree, length, seen)
        self.q_sequence = (spans.starts << _PLACE_BITS | spans.places).astype(np.int32)
        self.mask_function = functools.partial(_sees, spans.shared)


def _sees(shared: int, queries: Array, keys: Array) -> Array:
    """Whether a query, its start and its place in one number, sees the key at a place."""
    starts, places = queries >> _PLACE_BITS, queries & (2**_PLACE_BITS - 1)
    return (keys <= places) & ((keys < shared) | (keys >= starts))
