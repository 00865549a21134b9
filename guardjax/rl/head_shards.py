"""Where the head lies on a mesh while it is walked in chunks of the vocabulary.

A rule may split the head along the vocabulary. To cut a chunk out of it the partitioner then
gathers all of it, for every chunk anew. Split along the width instead, every chip holds its share
of every chunk, and a chunk alone is gathered when its turn comes; `tensor` splits the chunk.
"""

from __future__ import annotations

from collections.abc import Mapping

import jax
from jax.sharding import PartitionSpec

from guardjax.types import Array, Head

# Mesh axes; names of `guardjax.train.sharding.AXES`. The first two split B.
_DATA, _WIDTH, _VOCABULARY = "data", "fsdp", "tensor"


def rows_a_chip(batch: int) -> int:
    """Rows of a batch that lie on one chip of the mesh, if there is one."""
    if not _on_mesh():
        return batch
    sizes = jax.sharding.get_abstract_mesh().shape
    return -(-batch // (sizes[_DATA] * sizes[_WIDTH]))


def hold_head(head: Head) -> Head:
    """The head as chunks are cut out of it: on a mesh split along its width, as it is elsewhere.

    There it is rounded to the type of the product first, so that half the bytes travel.
    """
    if not _on_mesh():
        return head
    return head.replace(weight=hold_width(head.weight.astype(head.dtype), head.vocab_axis))


def hold_width(weight: Array, vocab_axis: int) -> Array:
    """A weight, or the gradient of one, split along its width and whole along the vocabulary."""
    return _hold(weight, {1 - vocab_axis: _WIDTH})


def hold_chunk(chunk: Array, vocab_axis: int) -> Array:
    """A chunk as products want it: whole along the width, over `tensor` along the vocabulary.

    From a head held by `hold_width`. It is cut first, then split, then gathered: asked for the end
    alone, the partitioner gathers all of the head for every chunk.
    """
    chunk = _hold_both(hold_width(chunk, vocab_axis), vocab_axis)
    return _hold(chunk, {vocab_axis: _VOCABULARY})


def hold_gradient(chunk: Array, vocab_axis: int) -> Array:
    """The gradient of a chunk, by the same steps back to where `hold_width` has the weight.

    It is summed over B as a whole: held as its end is, it would be summed at each chunk of tokens.
    """
    chunk = _hold_both(_hold(chunk, {vocab_axis: _VOCABULARY}), vocab_axis)
    return hold_width(chunk, vocab_axis)


def _hold_both(chunk: Array, vocab_axis: int) -> Array:
    return _hold(chunk, {vocab_axis: _VOCABULARY, 1 - vocab_axis: _WIDTH})


def _hold(weight: Array, axes: Mapping[int, str]) -> Array:
    """`weight` split along these axes over these mesh axes, where they divide; whole otherwise."""
    if not _on_mesh():
        return weight
    spec: list[str | None] = [None, None]
    for axis, name in axes.items():
        if weight.shape[axis] % jax.sharding.get_abstract_mesh().shape[name] == 0:
            spec[axis] = name
    return jax.lax.with_sharding_constraint(weight, PartitionSpec(*spec))


def _on_mesh() -> bool:
    mesh = jax.sharding.get_abstract_mesh()
    return {_DATA, _WIDTH, _VOCABULARY} <= set(mesh.axis_names) and mesh.size > 1
