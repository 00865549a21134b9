"""The least time a program can take on a chip: no part of it is faster than its own limit."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from guardjax.scale.chips import Chip


@dataclasses.dataclass(frozen=True)
class Cost:
    """Work of one chip. Costs of parts add, and a loop's body counts as often as it runs."""

    flops: float = 0.0
    bytes: float = 0.0                              # read from and written to HBM
    # Kind -> bytes sent.
    collectives: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def __add__(self, other: Cost) -> Cost:
        kinds = {*self.collectives, *other.collectives}
        return Cost(self.flops + other.flops, self.bytes + other.bytes, {
            kind: self.collectives.get(kind, 0.0) + other.collectives.get(kind, 0.0)
            for kind in sorted(kinds)})

    def __mul__(self, times: float) -> Cost:
        return Cost(self.flops * times, self.bytes * times,
                    {kind: size * times for kind, size in self.collectives.items()})

    def __sub__(self, other: Cost) -> Cost:
        return self + other * -1.0

    @property
    def sent(self) -> float:
        """Bytes sent between chips, of all kinds."""
        return sum(self.collectives.values())


@dataclasses.dataclass(frozen=True)
class Roofline:
    """Seconds that each resource needs on its own; together at least the largest of them."""

    compute: float
    memory: float
    interconnect: float

    @property
    def seconds(self) -> float:
        """The bound: work on different resources at best overlaps."""
        return max(self.compute, self.memory, self.interconnect)

    @property
    def bound_by(self) -> str:
        """Which resource that is."""
        return max(("compute", "memory", "interconnect"), key=lambda name: getattr(self, name))

    def flop_share(self, floor: float) -> float:
        """What part of the bound the FLOPs that the model needs would take on their own.

        Args:
          floor: seconds that the least FLOPs of the job take at peak.
        """
        return floor / self.seconds if self.seconds else 0.0


def roofline(cost: Cost, chip: Chip) -> Roofline:
    """The bounds of one chip's work."""
    return Roofline(cost.flops / chip.peak_flops, cost.bytes / chip.hbm_bandwidth,
                    cost.sent / chip.interconnect)
