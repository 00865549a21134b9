"""A TPU slice on a machine without one: its description, and a mesh of it to compile for."""

from __future__ import annotations

import dataclasses
import fnmatch
import importlib.metadata
import importlib.util
import math
import os
import re

from jax.experimental import mesh_utils, topologies
from jax.sharding import AxisType, Mesh

from guardjax.scale.chips import CHIPS, Chip
from guardjax.train.config import MeshConfig
from guardjax.train.sharding import AXES, mesh_sizes

_NAME = re.compile(r"(\w+):(\d+(?:x\d+)+)")

# Nothing runs on the chips, so that there is no server to ask about them, no lock on them to take,
# and no worker to name. A kind of machine must be named, and any will do.
_NO_CHIPS = {"TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
             "TPU_STDERR_LOG_LEVEL": "3", "TPU_MIN_LOG_LEVEL": "3",
             "TPU_WORKER_HOSTNAMES": "localhost", "TPU_ACCELERATOR_TYPE": "v5litepod-8"}


class SliceError(ValueError):
    """A slice that does not exist or cannot be compiled for on this machine."""


@dataclasses.dataclass(frozen=True)
class Slice:
    """A generation and a shape, such as v5e and "4x4"."""

    chip: Chip
    shape: str

    @property
    def num_chips(self) -> int:
        """Chips in the slice."""
        return math.prod(map(int, self.shape.split("x")))

    @property
    def name(self) -> str:
        """As it is asked for: "v5e:4x4"."""
        return f"{self.chip.name}:{self.shape}"


def parse_slice(name: str) -> Slice:
    """The slice of a name such as "v5e:4x4".

    Raises:
      SliceError: no such generation, or no such shape of it.
    """
    match = _NAME.fullmatch(name)
    if match is None or match[1] not in CHIPS:
        known = "; ".join(f"{chip.name}: {', '.join(chip.slices)}" for chip in CHIPS.values())
        raise SliceError(f"topology {name!r} is not a TPU slice such as v5e:4x4; known are {known}")
    chip = CHIPS[match[1]]
    if match[2] not in chip.slices:
        raise SliceError(f"topology {name!r}: {chip.name} comes in {', '.join(chip.slices)}")
    return Slice(chip, match[2])


def has_libtpu() -> bool:
    """Whether this machine can compile for TPUs."""
    return importlib.util.find_spec("libtpu") is not None


def check_libtpu() -> None:
    """Checks that libtpu is there, in the version that belongs to this JAX.

    A later one writes programs that this JAX cannot read back (0.0.52 with JAX 0.10.2), which shows
    only after minutes of compiling.

    Raises:
      SliceError: it is missing, or of another version.
    """
    if not has_libtpu():
        raise SliceError("compiling for a TPU needs libtpu: pip install 'guardjax[tpu]', and set "
                         "JAX_PLATFORMS=cpu where there is no TPU")
    found = importlib.metadata.version("libtpu")
    wanted = next((match[1] for line in importlib.metadata.requires("jax") or ()
                   if (match := re.match(r"libtpu==([\d.*]+)", line))), "*")
    if not fnmatch.fnmatch(found, wanted):
        raise SliceError(f"libtpu {found} does not belong to JAX "
                         f"{importlib.metadata.version('jax')}, which cannot read its programs: "
                         f"pip install 'libtpu=={wanted}'")


def slice_mesh(asked: Slice, config: MeshConfig) -> Mesh:
    """A mesh of a slice's chips, which are described, not there; its neighbours are neighbours.

    Raises:
      SliceError: libtpu is missing or of another version.
      ValueError: the sizes do not fit the number of chips.
    """
    sizes = mesh_sizes(config, asked.num_chips)
    check_libtpu()
    for name, value in _NO_CHIPS.items():
        os.environ.setdefault(name, value)
    # A host has four chips by default, and a slice of one chip is less than a host.
    part = {"chips_per_host_bounds": [1, 1, 1]} if asked.num_chips == 1 else {}
    devices = topologies.get_topology_desc(
        platform="tpu", topology_name=asked.name, **part).devices
    grid = mesh_utils.create_device_mesh(sizes, devices, allow_split_physical_axes=True)
    return Mesh(grid, AXES, axis_types=(AxisType.Auto,) * len(AXES))
