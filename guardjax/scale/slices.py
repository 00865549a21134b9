"""A TPU slice on a machine without one: its description, and a mesh of it to compile for."""

from __future__ import annotations

import dataclasses
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
        raise SliceError(f"topology {name!r} is not a TPU slice such as v5e:4x4; generations: "
                         f"{', '.join(CHIPS)}")
    chip = CHIPS[match[1]]
    if match[2] not in chip.slices:
        raise SliceError(f"topology {name!r}: {chip.name} comes in {', '.join(chip.slices)}")
    return Slice(chip, match[2])


def has_libtpu() -> bool:
    """Whether this machine can compile for TPUs."""
    return importlib.util.find_spec("libtpu") is not None


def slice_mesh(asked: Slice, config: MeshConfig) -> Mesh:
    """A mesh of a slice's chips, which are described, not there; its neighbours are neighbours.

    Raises:
      SliceError: libtpu is missing.
      ValueError: the sizes do not fit the number of chips.
    """
    if not has_libtpu():
        raise SliceError("compiling for a TPU needs libtpu: pip install 'guardjax[tpu]', and set "
                         "JAX_PLATFORMS=cpu where there is no TPU")
    # Nothing runs on the chips: no server to ask about them, no lock on them to take.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    os.environ.setdefault("TPU_STDERR_LOG_LEVEL", "3")
    devices = topologies.get_topology_desc(platform="tpu", topology_name=asked.name).devices
    sizes = mesh_sizes(config, len(devices))
    grid = mesh_utils.create_device_mesh(sizes, devices, allow_split_physical_axes=True)
    return Mesh(grid, AXES, axis_types=(AxisType.Auto,) * len(AXES))
