"""Published figures of TPU generations: the one table that estimates rest on."""

from __future__ import annotations

import dataclasses

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
    """One chip. Bandwidths in bytes a second, peak in bf16 FLOPs a second.

    `hbm` is what the compiler lets a program use: the published size less what the runtime keeps.
    It is the limit that libtpu 0.0.52 names when a program does not fit.
    """

    name: str
    peak_flops: float
    hbm: int
    hbm_bandwidth: float
    interconnect: float     # one way, all links of a chip together: half of the two-way figure
    slices: tuple[str, ...]  # topologies that can be asked for, smallest first
    source: str


_DOCS = "Cloud TPU documentation, docs.cloud.google.com/tpu/docs"

CHIPS = {chip.name: chip for chip in (
    Chip("v5e", 197e12, int(15.75 * GIB), 819e9, 400e9 / 2,
         ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16"), f"{_DOCS}/v5e"),
    Chip("v5p", 459e12, int(95.74 * GIB), 2765e9, 1200e9 / 2,
         ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8"),
         f"{_DOCS}/v5p"),
    Chip("v6e", 918e12, int(31.25 * GIB), 1600e9, 800e9 / 2,
         ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16"), f"{_DOCS}/v6e"),
)}
