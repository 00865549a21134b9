"""Kernels see rows: every prompt's segments one after the other, and ids that part or pad them.

Nothing is repeated: a prompt's keys are in its row once, however many answers follow. Because one
call of a kernel sees the whole row, its own gradient is the whole gradient. Calls for single parts
could not be joined so: cuDNN's gradient ignores what flows into the log-sum-exp that joining needs,
and splash refuses to be differentiated when it returns one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np

from guardjax.models.attention.segments import KeyPart
from guardjax.models.attention.tree import Run, SegmentTree

Array = jax.Array | np.ndarray


class Kernel(Protocol):
    """One call over padded rows. Shapes as `attend_rows`; rows of padding may hold anything finite.

    Every query has at least one key that it sees, if only its own.
    """

    def __call__(self, queries: Array, keys: Array, values: Array, query_ids: Array,
                 key_ids: Array, tree: SegmentTree | None, *, scale: float) -> jax.Array: ...


def attend_rows(queries: Array, keys: Array, values: Array, query_ids: Array, key_ids: Array,
                tree: SegmentTree | None, *, scale: float, backend: str | Kernel) -> jax.Array:
    """Softmax attention within rows, by a kernel.

    A query sees a key of the same id that the tree lets it see (without a tree, any).

    Args:
        queries: [B, K * R, Q, d]; R consecutive heads share each of the K key heads.
        keys: [B, K, S, d].
        values: [B, K, S, d].
        query_ids: [B, Q] int32, negative where padded. The queries are the last Q keys.
        key_ids: [B, S] int32, negative where padded.
        tree: static, who sees whom; None where ids alone decide.
        scale: factor of the scores.
        backend: "cudnn" or "splash", or a kernel itself.

    Returns:
        [B, K * R, Q, d] in the type of the values, 0 in padded rows.
    """
    kernel = _kernel(backend) if isinstance(backend, str) else backend
    out = kernel(queries, keys, values, query_ids, key_ids, tree, scale=scale)
    return jnp.where((query_ids >= 0)[:, None, :, None], out, 0).astype(values.dtype)


def segments_in_rows(queries: Sequence[Array], own: Sequence[KeyPart], past: Sequence[KeyPart],
                     *, scale: float, backend: str | Kernel) -> list[jax.Array]:
    """Causal attention of segments to the past, to the segments before them and to themselves.

    Args:
        queries: of each segment, lead + [K, R, T, d].
        own: of each segment, keys and values lead + [K, T, d] and mask lead + [1, T], True where
            a token is real.
        past: what came before, each with leading axes that the segments' begin with.
        scale: factor of the scores.
        backend: as in `attend_rows`.

    Returns:
        Of each segment lead + [K, R, T, d], 0 in the rows of padding.

    Raises:
        ValueError: leading axes that do not grow from part to part.
    """
    parts = [*past, *own]
    leads = [part.keys.shape[:-3] for part in parts]
    for before, after in zip(leads, leads[1:]):
        if after[:len(before)] != before:
            raise ValueError(f"keys with leading axes {before} cannot be shared by queries with "
                             f"leading axes {after}")
    tree = SegmentTree(tuple(Run(int(np.prod(lead[1:])), part.keys.shape[-2])
                             for lead, part in zip(leads, parts)), first_query=len(past))
    ids = jnp.concatenate([_ids(part.mask) for part in parts], axis=1)
    row = jnp.concatenate([_to_row(q.reshape(*q.shape[:-4], -1, *q.shape[-2:])) for q in queries],
                          axis=2)
    keys = jnp.concatenate([_to_row(part.keys) for part in parts], axis=2)
    values = jnp.concatenate([_to_row(part.values) for part in parts], axis=2)
    out = attend_rows(row, keys, values, ids[:, -row.shape[2]:], ids, tree, scale=scale,
                      backend=backend)
    ends = np.cumsum([run.size for run in tree.runs[len(past):]])
    pieces = jnp.split(out, ends[:-1], axis=2)
    return [_from_row(piece, q.shape) for piece, q in zip(pieces, queries)]


def pad_rows(x: Array, length: int, fill: Array | int = 0, axis: int = -2) -> jax.Array:
    """Lengthens `axis` to `length` with `fill`."""
    missing = length - x.shape[axis]
    if not missing:
        return jnp.asarray(x)
    shape = list(x.shape)
    shape[axis] = missing
    return jnp.concatenate([x, jnp.broadcast_to(fill, shape).astype(x.dtype)], axis=axis)


def _kernel(backend: str) -> Kernel:
    # Pallas takes a second to import; most processes never need it.
    if backend == "cudnn":
        from guardjax.models.attention import cudnn
        return cudnn.attend
    if backend == "splash":
        from guardjax.models.attention import splash
        return splash.attend
    raise ValueError(f"{backend!r} is no kernel; choose 'cudnn' or 'splash'")


def _ids(mask: Array) -> jax.Array:
    """lead + [1, S] bool to [B, branches * S] int32: 0 is real, -1 is padding."""
    return jnp.where(mask, 0, -1).reshape(mask.shape[0], -1).astype(jnp.int32)


def _to_row(x: Array) -> jax.Array:
    """[B, ..., heads, T, d] to [B, heads, branches * T, d]."""
    x = jnp.moveaxis(x, -3, 1)
    return x.reshape(*x.shape[:2], -1, x.shape[-1])


def _from_row(x: Array, shape: Sequence[int]) -> jax.Array:
    """The inverse of `_to_row` for queries, to `shape` = lead + [K, R, T, d]."""
    batch, *branches, key_heads, shared, tokens, size = shape
    x = x.reshape(batch, key_heads, shared, *branches, tokens, size)
    return jnp.moveaxis(x, (1, 2), (-4, -3))
