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
    mesh = jax.sharding.get_abstract_mesh()
    axes = tuple(axis for axis in BATCH_AXES if axis in mesh.axis_names)
    if not axes or mesh.size == 1 or x.shape[-2] == 1:
        return x
    return jax.lax.with_sharding_constraint(x, PartitionSpec(axes))
