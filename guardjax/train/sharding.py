"""Where arrays live on a mesh: axes, rule sets as data, and the batch.

Mesh axes: `data` replicates parameters and splits B; `fsdp` splits both parameters and B;
`tensor` splits the width of the decoder's layers and the vocabulary. All axes are Auto: XLA
places the collectives (GSPMD); nothing here knows the number of devices.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from guardjax.train.config import MeshConfig

AXES = ("data", "fsdp", "tensor")
BATCH_SPEC = PartitionSpec(("data", "fsdp"))

Where = Literal["replicate", "largest"] | tuple[str | None, ...]


@dataclasses.dataclass(frozen=True)
class RuleSet:
    """Ordered (pattern, placement) pairs; the first pattern found in a leaf's path decides.

    Placements: "replicate"; "largest", which splits the largest dimension that `fsdp` divides;
    or mesh axes for the last dimensions, since layers in a loop have leading ones more. An axis
    that does not divide its dimension is left out. Arrays below `min_size` elements are
    replicated: a gather of a few bytes costs more than the memory it saves.
    """

    rules: tuple[tuple[str, Where], ...]
    min_size: int = 1024


RULE_SETS: dict[str, RuleSet] = {
    "single": RuleSet(rules=((r"", "replicate"),)),
    # What pmap was for: whole parameters everywhere, XLA sums the gradients.
    "data_parallel": RuleSet(rules=((r"", "replicate"),)),
    # Low-rank adapters fall to the last rule: the kernel's side of a factor is split, never the
    # rank, and the small factors are whole everywhere.
    "fsdp": RuleSet(rules=(
        (r"(^|/)(bias|scale|[^/]*norm[^/]*)(/|$)", "replicate"),
        # A table is looked up along its rows: see `models.residual.hold_embedded`.
        (r"(^|/)embed_tokens/embedding$", (None, "fsdp")),
        (r"", "largest"),
    )),
    # Megatron's pairs (Shoeybi et al. 2019, arXiv 1909.08053): the first of two layers splits its
    # result, the second what it sums over, so that a pair costs one sum over `tensor`. `fsdp` takes
    # the other side. The tower is small and split by `fsdp` alone.
    "fsdp_tensor": RuleSet(rules=(
        (r"(^|/)visual/.*(bias|scale|[^/]*norm[^/]*)(/|$)", "replicate"),
        (r"(^|/)visual/", "largest"),
        (r"(^|/)([qkv]|gate|up)_proj/bias$", ("tensor",)),
        (r"(^|/)(bias|scale|[^/]*norm[^/]*)(/|$)", "replicate"),
        (r"(^|/)([qkv]|gate|up)_proj/kernel$", ("fsdp", "tensor")),
        (r"(^|/)([qkv]|gate|up)_proj/lora_a$", ("fsdp", None)),
        (r"(^|/)([qkv]|gate|up)_proj/lora_b$", (None, "tensor")),
        (r"(^|/)(o|down)_proj/kernel$", ("tensor", "fsdp")),
        (r"(^|/)(o|down)_proj/lora_a$", ("tensor", None)),
        (r"(^|/)(o|down)_proj/lora_b$", (None, "fsdp")),
        (r"(^|/)embed_tokens/embedding$", ("tensor", "fsdp")),
        (r"(^|/)lm_head/kernel$", ("fsdp", "tensor")),
        (r"", "largest"),
    )),
}


def mesh_sizes(config: MeshConfig, num_devices: int) -> tuple[int, int, int]:
    """Sizes of the axes over so many devices, -1 filled in; the rule set "single" takes one.

    Raises:
      ValueError: if they do not multiply to the number of devices.
    """
    sizes = [config.data, config.fsdp, config.tensor]
    if config.rules == "single":
        if any(size not in (1, -1) for size in sizes):
            raise ValueError(f"mesh.rules='single' uses one device, but the sizes are {sizes}; "
                             "choose mesh.rules='data_parallel', 'fsdp' or 'fsdp_tensor'")
        if jax.process_count() > 1:
            raise ValueError(f"mesh.rules='single' uses one device, and {jax.process_count()} "
                             "processes would train for themselves; choose mesh.rules="
                             "'data_parallel', 'fsdp' or 'fsdp_tensor'")
        return 1, 1, 1
    if config.rules != "fsdp_tensor" and config.tensor != 1:
        raise ValueError(f"mesh.tensor={config.tensor} splits layers, and mesh.rules="
                         f"{config.rules!r} splits none: set it to 1, or mesh.rules='fsdp_tensor'")
    known = math.prod(size for size in sizes if size != -1)
    if -1 in sizes and num_devices % known == 0:
        sizes[sizes.index(-1)] = num_devices // known
    if -1 in sizes or math.prod(sizes) != num_devices:
        product = " * ".join(f"{axis}={n}" for axis, n in zip(AXES, sizes, strict=True))
        raise ValueError(f"mesh {product} does not fit {num_devices} device(s): the sizes must "
                         "multiply to that number (-1 for one of them takes what is left)")
    return tuple(sizes)


def make_mesh(config: MeshConfig, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Returns the mesh of three Auto axes; the rule set "single" takes the first device.

    Raises:
      ValueError: as `mesh_sizes`.
    """
    devices = list(jax.devices() if devices is None else devices)
    sizes = mesh_sizes(config, len(devices))
    return Mesh(np.asarray(devices[:math.prod(sizes)]).reshape(sizes), AXES,
                axis_types=(AxisType.Auto,) * 3)


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
    first = len(shape) - len(placement)
    axes = (*(None,) * first, *placement)
    return PartitionSpec(*(axis if axis and size % mesh.shape[axis] == 0 else None
                           for axis, size in zip(axes, shape, strict=True)))


def tree_shardings(tree: Any, mesh: Mesh, rules: RuleSet | str) -> Any:
    """Returns the tree of `NamedSharding`s for parameters, a `TrainState`, or any other tree.

    Moments of the optimiser have the paths and shapes of their parameters, so they follow them.
    """
    rule_set = RULE_SETS[rules] if isinstance(rules, str) else rules

    def place(path: Any, leaf: Any) -> NamedSharding:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        return NamedSharding(mesh, leaf_spec(name, leaf.shape, mesh, rule_set))

    return jax.tree_util.tree_map_with_path(place, tree)


def on_one_device(tree: Any) -> Any:
    """The tree bound to the first device, as all that is restored, or computed from it, will be.

    An array that `jnp` makes is bound to none, and programs are compiled for that difference: the
    second step, and the first after a restart, would be compiled anew.
    """
    return jax.device_put(tree, jax.devices()[0])


def shard_tree(tree: Any, mesh: Mesh, rules: RuleSet | str) -> Any:
    """Returns the tree with every array placed by the rules.

    Arrays of this process alone, on the host or on its devices, must be equal on all processes.
    """
    return jax.tree.map(_put, tree, tree_shardings(tree, mesh, rules))


def _put(leaf: Any, sharding: NamedSharding) -> jax.Array:
    is_global = isinstance(leaf, jax.Array) and not leaf.is_fully_addressable
    if sharding.is_fully_addressable or is_global:
        return jax.device_put(leaf, sharding)
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        data = _put(jax.random.key_data(leaf), NamedSharding(sharding.mesh, PartitionSpec()))
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
    # `device_put` would send every array to every process, to compare them.
    host = np.asarray(leaf)
    return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])


@dataclasses.dataclass(frozen=True)
class Placement:
    """A mesh and the name of its rules: what a stage must know to be trained on many devices."""

    mesh: Mesh
    rules: str

    def pin(self, tree: Any) -> Any:
        """Inside `jit`: the tree of parameters, gradients or moments, held where the rules say.

        A gradient that is held so is summed and split in one collective, and the state comes out
        of a step as it went in, so that its buffers are used again.
        """
        return jax.lax.with_sharding_constraint(tree, self.shardings(tree))

    def shardings(self, tree: Any) -> Any:
        """Where the rules put the leaves of a tree of arrays or of their shapes."""
        return tree_shardings(tree, self.mesh, self.rules)

    def put(self, tree: Any) -> Any:
        """Arrays of parameters or a state, moved to where the rules say."""
        return shard_tree(tree, self.mesh, self.rules)

    def rows(self, batch: int) -> slice:
        """The rows of a batch of so many that this process makes; see `own_rows`."""
        return own_rows(batch, self.mesh)

    def own(self, tree: Any) -> Any:
        """Of host arrays with all rows of a batch, those of this process; see `put_batch`."""
        return jax.tree.map(lambda leaf: leaf[self.rows(len(leaf))], tree)

    def put_batch(self, batch: Any) -> Any:
        """See `shard_batch`."""
        return shard_batch(batch, self.mesh)

    def like(self, tree: Any) -> Any:
        """`jax.ShapeDtypeStruct`s of a tree of parameters or a state, with their shardings."""
        return _with(tree, self.shardings(tree))

    def batch_like(self, batch: Any) -> Any:
        """`jax.ShapeDtypeStruct`s of a batch, its leading axis B split."""
        sharding = NamedSharding(self.mesh, BATCH_SPEC)
        return _with(batch, jax.tree.map(lambda leaf: sharding, batch))

    def everywhere(self, tree: Any) -> Any:
        """`jax.ShapeDtypeStruct`s of arrays that every device has whole."""
        sharding = NamedSharding(self.mesh, PartitionSpec())
        return _with(tree, jax.tree.map(lambda leaf: sharding, tree))


def _with(tree: Any, shardings: Any) -> Any:
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        tree, shardings)


def check_batch(size: int, mesh: Mesh) -> None:
    """Checks that `size` prompts split evenly over data * fsdp.

    Raises:
      ValueError: naming the nearest sizes that do.
    """
    ways = _ways(mesh)
    if size % ways:
        below, above = size // ways * ways, (size // ways + 1) * ways
        near = f"{below} or {above}" if below else str(above)
        raise ValueError(
            f"a batch of {size} does not split over data={mesh.shape['data']} * "
            f"fsdp={mesh.shape['fsdp']} = {ways} ways: use a batch of {near}, or a smaller mesh")


def own_rows(size: int, mesh: Mesh) -> slice:
    """The rows of a batch of `size` prompts that lie on this process's devices.

    Processes have the same rows where `tensor` goes across them.

    Raises:
      ValueError: the rows are no single run, since the mesh goes to and fro between processes.
    """
    own = _own_ways(mesh)
    share = size // _ways(mesh)
    return slice(own.start * share, own.stop * share)


def check_pairs(size: int, mesh: Mesh) -> None:
    """Checks that no pair of prompts, rows 2k and 2k + 1, lies on two processes.

    Raises:
      ValueError: naming a batch that does.
    """
    rows = own_rows(size, mesh)
    if rows.start % 2 or rows.stop % 2:
        raise ValueError(
            f"a batch of {size} gives each process {rows.stop - rows.start} prompts, and the two "
            "prompts of a pair are rewarded together by one process: use a batch of "
            f"{2 * size}, or a smaller mesh")


def _ways(mesh: Mesh) -> int:
    return mesh.shape["data"] * mesh.shape["fsdp"]


def _own_ways(mesh: Mesh) -> range:
    """Of the parts into which a batch is split, those with a device of this process."""
    here = jax.process_index()
    own = [i for i, devices in enumerate(mesh.devices.reshape(_ways(mesh), -1))
           if any(device.process_index == here for device in devices)]
    if own != list(range(own[0], own[-1] + 1)):
        raise ValueError(f"parts {own} of a batch lie on process {here}: order the mesh's devices "
                         "by process")
    return range(own[0], own[-1] + 1)


def check_heads(num_key_heads: int, mesh: Mesh) -> None:
    """Checks that `tensor` splits the decoder's attention between heads, not inside one.

    Raises:
      ValueError: naming the sizes that do.
    """
    size = mesh.shape["tensor"]
    if num_key_heads % size:
        fit = [n for n in range(1, num_key_heads + 1) if num_key_heads % n == 0]
        raise ValueError(f"mesh.tensor={size} would cut heads in two: the model has "
                         f"{num_key_heads} key/value heads, so it may be "
                         f"{', '.join(map(str, fit))}")


def shard_batch(batch: Any, mesh: Mesh) -> Any:
    """Returns the batch with the leading axis B of every array split over data * fsdp.

    With several processes each passes its `own_rows`. Arrays that are on the mesh already are
    moved only if they lie otherwise.

    Raises:
      ValueError: if B does not divide.
    """
    sharding = NamedSharding(mesh, BATCH_SPEC)
    own = _own_ways(mesh)

    def place(leaf: Any) -> jax.Array:
        if isinstance(leaf, jax.Array):
            return jax.device_put(leaf, sharding)
        if leaf.shape[0] % len(own):    # several processes: what is their sum is not known here
            check_batch(leaf.shape[0] * _ways(mesh) // len(own), mesh)
        total = leaf.shape[0] // len(own) * _ways(mesh)
        return jax.make_array_from_process_local_data(
            sharding, np.asarray(leaf), (total, *leaf.shape[1:]))

    return jax.tree.map(place, batch)
