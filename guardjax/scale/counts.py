"""FLOPs, bytes and messages of a compiled program, every loop as often as it runs.

`Compiled.cost_analysis()` counts a loop's body once, and layers are a loop. Here the same is
counted on the text of the program that will run, times the trips of its loops.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

from guardjax.scale.hlo import COLLECTIVES, Computation, Instruction, parse
from guardjax.scale.kernels import is_kernel, kernel_cost
from guardjax.scale.moved import bytes_moved, on_the_chip
from guardjax.scale.roofline import Cost

_LIST = re.compile(r"replica_groups=\{\{([\d,]+)\}")
_GRID = re.compile(r"replica_groups=\[\d+,(\d+)\]<=")
_MESH = re.compile(r"replica_groups=mesh\[([^\]]*)\][^{]*\{([^}]*)\}")
_AXIS = re.compile(r"'([^']+)'=(\d+)")


class CountError(ValueError):
    """A program with something whose cost cannot be read."""


def count(text: str, endless: int = 1) -> Cost:
    """The work of one chip, once through a compiled program.

    * FLOPs are those of matrix products and convolutions, 2 for each multiply and add.
    * Bytes are read from and written to HBM at the borders of fusions; a slice of an array counts
      as the slice, and arrays that the compiler keeps on the chip do not count.
    * Kernels of attention: see `kernels`.
    * Bytes sent are those of rings: of n chips and an array of S bytes (the whole one), each sends
      S (n - 1) / n to gather, scatter or exchange it, twice that to sum it for all (Patarasuk and
      Yuan 2009), and S to pass it on.

    Args:
      text: `Compiled.as_text()`.
      endless: trips of loops that end by what they compute.

    Raises:
      CountError: chips of a collective that are written in a way that is not known.
      KernelError: a kernel whose work is not known.
    """
    program, total = parse(text), Cost()
    fused = on_the_chip(program)
    seen: set[tuple[str, str]] = set()
    for name, times in program.visits(endless).items():
        if not times:
            continue
        computation = program.computations[name]
        flops = sum(_flops(each, computation) for each in computation.instructions.values())
        moved = 0.0 if name in fused else sum(
            bytes_moved(each, computation, program)
            for each in computation.instructions.values())
        sent = {kind: 0.0 for kind in COLLECTIVES}
        for kind, size in _messages(computation, seen):
            sent[kind] += size
        total += Cost(flops, moved, {k: v for k, v in sent.items() if v}) * times
        total += _kernels(computation) * times
    return total


def _kernels(computation: Computation) -> Cost:
    total = Cost()
    for each in filter(is_kernel, computation.instructions.values()):
        total += kernel_cost(each, [computation.instructions[name].results[0]
                                    for name in each.operands])
    return total


# --- FLOPs ---------------------------------------------------------------------------------------

def _flops(each: Instruction, computation: Computation) -> float:
    if each.op not in ("convolution", "dot"):
        return 0.0
    left, right = (computation.instructions[name].results[0].dims for name in each.operands[:2])
    out = math.prod(each.results[0].dims)
    if each.op == "dot":
        axes = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", each.attributes)[1]
        return 2.0 * out * math.prod(left[int(axis)] for axis in axes.split(",") if axis)
    lhs, rhs, result = re.match(
        r".*dim_labels=(\w+)_(\w+)->(\w+)", each.attributes).groups()
    flops = 2.0 * right[rhs.index("i")] * each.results[0].dims[result.index("f")]
    flops *= each.results[0].dims[result.index("b")]
    for place in range(len(lhs) - 2):       # the spatial ones, in which batches may be hidden
        label = str(place)
        flops *= _positions(left[lhs.index(label)], right[rhs.index(label)],
                            each.results[0].dims[result.index(label)], place, each.attributes)
    groups = re.search(r"batch_group_count=(\d+)", each.attributes)
    return flops / (int(groups[1]) if groups else 1)


def _positions(size: int, kernel: int, out: int, place: int, attributes: str) -> int:
    """Pairs of an output and a kernel position along one spatial axis that meet an input."""
    window = re.search(r"window=\{([^}]*)\}", attributes)
    fields = dict(part.split("=") for part in window[1].split()) if window else {}

    def field(name: str, default: str) -> str:
        return fields[name].split("x")[place] if name in fields else default

    stride, dilation = int(field("stride", "1")), int(field("rhs_dilate", "1"))
    spread, low = int(field("lhs_dilate", "1")), int(field("pad", "0_0").split("_")[0])
    reach = (size - 1) * spread
    total = 0
    for k in range(kernel):
        first = k * dilation - low      # of output 0; output o is at first + o * stride
        if stride == spread and first % spread == 0:
            lowest = max(0, -(first // stride))
            highest = min(out - 1, (reach - first) // stride)
            total += max(0, highest - lowest + 1)
        else:
            total += sum(0 <= at <= reach and at % spread == 0
                         for at in range(first, first + out * stride, stride))
    return total


# --- messages ------------------------------------------------------------------------------------

def _messages(computation: Computation, seen: set[tuple[str, str]]) -> Iterator[tuple[str, float]]:
    """(kind, bytes sent) of every collective that is not in `seen`.

    One that overlaps with other work stands in the text at its start, on its way and at its end,
    each time with the same channel.
    """
    fused = "all-reduce-scatter" in computation.name
    for each in computation.instructions.values():
        kind = each.op.removesuffix("-start")
        if kind not in COLLECTIVES:
            continue
        channel = re.search(r"channel_id=(\d+)", each.attributes)
        if channel and (kind, channel[1]) in seen:
            continue
        if channel:
            seen.add((kind, channel[1]))
        sizes = [shape.bytes for shape in each.results]
        # A started one gives (operands, results): the larger is the whole array.
        size = max(sizes) if each.op.endswith("-start") else sum(sizes)
        if kind == "collective-permute":
            yield kind, size
            continue
        num = _group(each.attributes)
        if each.op == "reduce-scatter":
            size *= num
        share = size * (num - 1) / num
        if kind == "all-reduce" and not fused:
            yield kind, 2 * share
        else:       # what TPUs fuse of an all-reduce and a slice is a reduce-scatter
            yield "reduce-scatter" if kind == "all-reduce" else kind, share


def _group(text: str) -> int:
    """How many chips take part together."""
    if match := _MESH.search(text):
        sizes = {name: int(size) for name, size in _AXIS.findall(match[1])}
        axes = re.findall(r"'([^']+)'", match[2])
        if all(axis in sizes for axis in axes):
            return math.prod(sizes[axis] for axis in axes)
    if match := _GRID.search(text):
        return int(match[1])
    if match := _LIST.search(text):
        return match[1].count(",") + 1
    raise CountError(f"cannot read the chips of a collective: {text[:200]}")
