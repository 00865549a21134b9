"""Where arrays live on a mesh: axes, rule sets as data, and the batch.

Mesh axes: `data` replicates parameters and splits B; `fsdp` splits both parameters and B;
`tensor` splits the width of layers (reserved: no rule set uses it yet). All axes are Auto: XLA
places the collectives (GSPMD); nothing here knows the number of devices.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Sequence
from typing import Any, Literal

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from guardjax.train.config import MeshConfig

AXES = ("data", "fsdp", "tensor")
BATCH_SPEC = PartitionSpec(("data", "fsdp"))

Placement = Literal["replicate", "largest"] | tuple[str | None, ...]


@dataclasses.dataclass(frozen=True)
class RuleSet:
    """Ordered (pattern, placement) pairs; the first pattern found in a leaf's path decides.

    Placements: "replicate"; "largest", which splits the largest dimension that `fsdp` divides;
    or mesh axes dimension by dimension. Arrays below `min_size` elements are replicated: a
    gather of a few bytes costs more than the memory it saves.
    """

    rules: tuple[tuple[str, Placement], ...]
    min_size: int = 1024


RULE_SETS: dict[str, RuleSet] = {
    "single": RuleSet(rules=((r"", "replicate"),)),
    # What pmap was for: whole parameters everywhere, XLA sums the gradients.
    "data_parallel": RuleSet(rules=((r"", "replicate"),)),
    # Low-rank adapters fall to the last rule: the kernel's side of a factor is split, never the
    # rank, and the small factors are whole everywhere.
    "fsdp": RuleSet(rules=(
        (r"(^|/)(bias|scale|[^/]*norm[^/]*)(/|$)", "replicate"),
        (r"", "largest"),
    )),
}


def make_mesh(config: MeshConfig, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Returns the mesh of three Auto axes; the rule set "single" takes the first device.

    Raises:
      ValueError: if the sizes do not multiply to the number of devices.
    """
    devices = list(jax.devices() if devices is None else devices)
    sizes = [config.data, config.fsdp, config.tensor]
    if config.rules == "single":
        if any(size not in (1, -1) for size in sizes):
            raise ValueError(f"mesh.rules='single' uses one device, but the sizes are {sizes}; "
                             "choose mesh.rules='data_parallel' or 'fsdp'")
        sizes, devices = [1, 1, 1], devices[:1]
    known = math.prod(size for size in sizes if size != -1)
    if -1 in sizes and len(devices) % known == 0:
        sizes[sizes.index(-1)] = len(devices) // known
    if -1 in sizes or math.prod(sizes) != len(devices):
        product = " * ".join(f"{axis}={n}" for axis, n in zip(AXES, sizes, strict=True))
        raise ValueError(f"mesh {product} does not fit {len(devices)} device(s): the sizes must "
                         "multiply to that number (-1 for one of them takes what is left)")
    return Mesh(np.asarray(devices).reshape(sizes), AXES, axis_types=(AxisType.Auto,) * 3)


def leaf_spec(path: str, shape: Sequence[int], mesh: Mesh, rules: RuleSet) -> PartitionSpec:
    """Returns the placement of one array by its path, such as "model/layers/kernel"."""
    if math.prod(shape) < rules.min_size:
        return PartitionSpec()
    placement = next(how for pattern, how in rules.rules if re.search(pattern, path))
    if placement == "replicate":
        return PartitionSpec()
    if placement == "largest":
        size = mesh.shape["fsdp"]
        dims = [i for i, n in enumerate(shape) if n % size == 0]
        if size == 1 or not dims:
            return PartitionSpec()
        largest = max(dims, key=lambda i: shape[i])
        return PartitionSpec(*(None,) * largest, "fsdp")
    return PartitionSpec(*placement)


def tree_shardings(tree: Any, mesh: Mesh, rules: RuleSet | str) -> Any:
    """Returns the tree of `NamedSharding`s for parameters, a `TrainState`, or any other tree.

    Moments of the optimiser have the paths and shapes of their parameters, so they follow them.
    """
    rule_set = RULE_SETS[rules] if isinstance(rules, str) else rules

    def place(path: Any, leaf: Any) -> NamedSharding:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        return NamedSharding(mesh, leaf_spec(name, leaf.shape, mesh, rule_set))

    return jax.tree_util.tree_map_with_path(place, tree)


def shard_tree(tree: Any, mesh: Mesh, rules: RuleSet | str) -> Any:
    """Returns the tree with every array placed by the rules."""
    return jax.device_put(tree, tree_shardings(tree, mesh, rules))


def check_batch(size: int, mesh: Mesh) -> None:
    """Checks that `size` prompts split evenly over data * fsdp.

    Raises:
      ValueError: naming the nearest sizes that do.
    """
    ways = mesh.shape["data"] * mesh.shape["fsdp"]
    if size % ways:
        below, above = size // ways * ways, (size // ways + 1) * ways
        near = f"{below} or {above}" if below else str(above)
        raise ValueError(
            f"a batch of {size} does not split over data={mesh.shape['data']} * "
            f"fsdp={mesh.shape['fsdp']} = {ways} ways: use a batch of {near}, or a smaller mesh")


def shard_batch(batch: Any, mesh: Mesh) -> Any:
    """Returns the batch with the leading axis B of every array split over data * fsdp.

    With several processes each passes its own rows, and B is their sum.

    Raises:
      ValueError: if B does not divide.
    """
    sharding = NamedSharding(mesh, BATCH_SPEC)

    def place(leaf: Any) -> jax.Array:
        check_batch(leaf.shape[0] * jax.process_count(), mesh)
        return jax.make_array_from_process_local_data(sharding, np.asarray(leaf))

    return jax.tree.map(place, batch)
