"""A kernel on a mesh: each device computes the rows and the heads that lie on it.

The partitioner cannot look into a kernel, so what a device is given is said here. Rows are split
over the axes over which a batch is, pictures over all (`residual.hold_pictures`), and key heads,
each with the query heads that share it, over what is left. An axis that divides neither is left
out: devices along it do the same work, and nothing is padded.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np
from jax.sharding import AbstractMesh, AxisType, PartitionSpec

from guardjax.models.attention.backends import AttentionError
from guardjax.models.residual import BATCH_AXES

Array = jax.Array | np.ndarray
Axes = tuple[str, ...]


def on_each_device(kernel: Callable[..., jax.Array], queries: Array, keys: Array, values: Array,
                   query_ids: Array, key_ids: Array, *, pictures: bool) -> jax.Array:
    """`kernel(queries, keys, values, query_ids, key_ids)`, on a mesh by each device for its part.

    Args:
        kernel: sees whole rows and whole groups of heads, of which the number may be smaller.
        queries: [B, K * R, Q, d]; R consecutive heads share each of the K key heads.
        keys: [B, K, S, d].
        values: [B, K, S, d].
        query_ids: [B, Q].
        key_ids: [B, S].
        pictures: rows may be split over every axis, not over those of a batch alone.

    Returns:
        [B, K * R, Q, d].

    Raises:
        AttentionError: an axis of the mesh is not Auto.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.size <= 1:
        return kernel(queries, keys, values, query_ids, key_ids)
    _check_axes(mesh)
    for_rows = [axis for axis in mesh.axis_names if pictures or axis in BATCH_AXES]
    rows, heads = shares(mesh.shape, for_rows, batch=queries.shape[0], key_heads=keys.shape[1])
    by_row, by_head = PartitionSpec(rows or None), PartitionSpec(rows or None, heads or None)
    # What a kernel gives varies along the axes by which it is split; Pallas does not say so.
    spread = jax.shard_map(kernel, in_specs=(by_head,) * 3 + (by_row,) * 2, out_specs=by_head,
                           check_vma=False)
    return spread(queries, keys, values, query_ids, key_ids)


def shares(sizes: Mapping[str, int], for_rows: Sequence[str], *, batch: int,
           key_heads: int) -> tuple[Axes, Axes]:
    """(axes that split the rows, axes that split the key heads), no axis twice.

    Of the axes in `for_rows` those whose product is the largest that divides the batch; of all
    others likewise by the key heads. Of equal products the one that comes first.
    """
    rows = _most(sizes, for_rows, batch)
    return rows, _most(sizes, [axis for axis in sizes if axis not in rows], key_heads)


def _most(sizes: Mapping[str, int], axes: Sequence[str], total: int) -> Axes:
    useful = [axis for axis in axes if sizes[axis] > 1]
    ways = lambda chosen: math.prod(sizes[axis] for axis in chosen)
    subsets = itertools.chain.from_iterable(
        itertools.combinations(useful, n) for n in range(len(useful) + 1))
    return max((chosen for chosen in subsets if total % ways(chosen) == 0), key=ways)


def _check_axes(mesh: AbstractMesh) -> None:
    for axis, kind in zip(mesh.axis_names, mesh.axis_types, strict=True):
        if kind != AxisType.Auto:
            raise AttentionError(
                f"attention='splash' places its own parts on axes that are Auto, and axis {axis!r} "
                f"of the mesh is {kind.name}: make it AxisType.Auto, or choose attention='xla'")
