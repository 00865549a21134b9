"""The residual stream on a mesh: split along B, and whole along everything else.

Left to itself the partitioner may carry a layer's split of the parameters into the activations and
gather them again in the next. Held here in every layer, it moves the weights instead, which is what
`fsdp` means. A step of decoding is left to itself: a few tokens are moved sooner than the weights.
"""

from __future__ import annotations

import jax
import numpy as np
from jax.sharding import PartitionSpec

Array = jax.Array | np.ndarray

# Mesh axes over which a batch is split; names of `guardjax.train.sharding.AXES`.
BATCH_AXES = ("data", "fsdp")


def hold(x: Array) -> Array:
    """Under `jax.set_mesh` with those axes, x [B, ..., T, D] split along B; as it is elsewhere."""
    return jax.lax.with_sharding_constraint(x, PartitionSpec(BATCH_AXES)) if _held(x) else x


def hold_rows(x: Array) -> Array:
    """As `hold`, for queries, keys and values x [B, ..., T, F]: their width may be split further.

    What `tensor` splits stays split. But heads are never split over `fsdp`, which may not divide
    them, so that chips would compute what is padded, and exchange rows for heads and back.
    """
    if not _meshed():
        return x
    rest = (PartitionSpec.UNCONSTRAINED,) * (x.ndim - 1)
    return jax.lax.with_sharding_constraint(x, PartitionSpec(BATCH_AXES, *rest))


def hold_for_kernel(x: Array, *, heads: bool = False) -> Array:
    """What a projection of attention multiplies, x [B, ..., T, D]: as `hold_rows`, but in decoding.

    There, T is 1, it is split along its width as the kernel is along its rows. Each chip then
    multiplies the tokens of its `data` way with its own part of the kernel, and sums are exchanged:
    a few tokens instead of the kernel, at every step. `heads` says that x comes from attention,
    whose width `tensor` splits.
    """
    x = hold_rows(x)    # first: what gave x keeps its rows, too
    if x.shape[-2] > 1 or not _meshed():
        return x
    mesh = jax.sharding.get_abstract_mesh()
    axis = "tensor" if heads and _has_tensor() else "fsdp"
    if x.shape[-1] % mesh.shape[axis]:
        return x
    width = PartitionSpec("data", *(None,) * (x.ndim - 2), axis)
    return jax.lax.with_sharding_constraint(x, width)


def hold_embedded(x: Array) -> Array:
    """As `hold`, for rows x [B, ..., T, D] of a table whose width D is split over `fsdp`.

    Every chip looks up its part of the width for all rows of its `data` way, and the ways of
    `fsdp` then exchange widths for rows. Asked for the end alone, the partitioner finds no way but
    to make x whole on every chip. A step of decoding keeps its widths here, and needs to be told
    only where `tensor` splits the rows of the table.
    """
    if not _held(x) and not _has_tensor():
        return x
    data, fsdp = BATCH_AXES
    between = PartitionSpec(data, *(None,) * (x.ndim - 2), fsdp)
    return hold(jax.lax.with_sharding_constraint(x, between))


def hold_pictures(x: Array) -> Array:
    """As `hold`, for pictures x [B, N, D] in a tower: split over all chips where B allows.

    No weight of a tower is split along `tensor`, so that chips along it would all do the same work.
    """
    if _held(x) and x.shape[0] % (mesh := jax.sharding.get_abstract_mesh()).size == 0:
        return jax.lax.with_sharding_constraint(x, PartitionSpec(mesh.axis_names))
    return hold(x)


def _held(x: Array) -> bool:
    return _meshed() and x.shape[-2] > 1


def _meshed() -> bool:
    mesh = jax.sharding.get_abstract_mesh()
    return set(BATCH_AXES) <= set(mesh.axis_names) and mesh.size > 1


def _has_tensor() -> bool:
    return _meshed() and jax.sharding.get_abstract_mesh().shape.get("tensor", 1) > 1
