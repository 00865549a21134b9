"""Work of the kernels of attention in a compiled program, which says nothing of what they do.

A Pallas kernel is one instruction. How many blocks it visits stands in the name of the scope that
`models.attention.splash` puts around it; shapes are those of its operands. Counted is what it
computes, whole blocks whatever in them is masked, and at most what it moves: each row of blocks is
read once, and for each block visited in it the other side anew (Dao et al. 2022, arXiv 2205.14135,
section 3.1).
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence

from guardjax.scale.hlo import Instruction, Shape
from guardjax.scale.roofline import Cost

# Products of a block: scores and values; for the queries' gradient scores, its weights' gradient
# and the queries'; for keys and values the scores again, both gradients and the weights'.
PRODUCTS: Mapping[str, int] = {"fwd": 2, "dq": 3, "dkv": 4}

_PHASE = re.compile(r"splash_mha_(fwd|dq|dkv)_segmented")
_VISITS = re.compile(r"splash_(\d+)_blocks_(\d+)_masked_(\d+)x(\d+)")
_TARGET = re.compile(r'custom_call_target="([^"]*)"')
_FLOATS = ("bf16", "f32")
_OP_NAME = re.compile(r'op_name="([^"]*)"')


class KernelError(ValueError):
    """A kernel whose work is not known."""


def is_kernel(each: Instruction) -> bool:
    """Whether an instruction is a Pallas kernel."""
    target = _TARGET.search(each.attributes) if each.op == "custom-call" else None
    return target is not None and target[1] == "tpu_custom_call"


def kernel_cost(each: Instruction, operands: Sequence[Shape]) -> Cost:
    """What a splash kernel computes and moves. Of B rows, H query heads, and n blocks a head that
    are visited: 2 d products of B * H * n blocks.

    Args:
      each: the kernel.
      operands: their shapes, of one row without an axis B: integers of the plan, then queries
        [B, H, Q, d], keys and values [B, K, S, d], ids of queries and of keys; for gradients the
        log-sum-exp, the results' gradient and its sum; and, if there are any, the masks of blocks
        [n, rows, columns] or the numbers of queries from which a mask is computed.

    Raises:
      KernelError: it is no splash kernel, or does not say how many blocks it visits.
    """
    name = _OP_NAME.search(each.attributes)
    phase = _PHASE.search(each.attributes)
    visits = _VISITS.search(each.attributes)
    if phase is None or visits is None:
        raise KernelError(f"the work of kernel {name[1] if name else each.name!r} is not known")
    blocks, masked, rows, columns = map(int, visits.groups())
    first = next(index for index, shape in enumerate(operands) if shape.dtype in _FLOATS)
    queries, keys, values, query_ids, key_ids, *rest = operands[first:]
    heads, _, size = queries.dims[-3:]
    batch = math.prod(queries.dims[:-3])
    flops = 2.0 * PRODUCTS[phase[1]] * batch * heads * blocks * rows * columns * size
    gradients, mask = (rest[:3], rest[3:]) if phase[1] != "fwd" else ([], rest)
    masks = [shape for shape in mask if len(shape.dims) == 3]
    # The numbers are the same for all rows, and each row reads them for itself.
    numbers = [dataclasses.replace(shape, dims=(batch, *shape.dims)) for shape in mask
               if len(shape.dims) == 2]
    by_query, by_key = [queries, *gradients, query_ids, *numbers], [keys, values, key_ids]
    if phase[1] == "dkv":       # heads are the inner loop: ids of keys stay while they go by
        moved = sum(map(_bytes, by_key))
        again, side, length = by_query, rows, queries.dims[-2]
    else:
        moved = sum(_of_a_head(shape, queries) * heads for shape in by_query)
        again, side, length = by_key, columns, keys.dims[-2]
    moved += sum(_of_a_head(shape, queries) / length for shape in again) * side * heads * blocks
    # Masks are the same for all rows and heads, and each that a head meets is read for itself.
    moved += sum(_bytes(shape) / shape.dims[0] for shape in masks) * batch * heads * masked
    return Cost(flops, moved + sum(map(_bytes, each.results)))


def _of_a_head(shape: Shape, queries: Shape) -> float:
    """Bytes that a head reads: its own part, or all of what has no heads, such as ids."""
    has_heads = len(shape.dims) == len(queries.dims)
    return _bytes(shape) / (shape.dims[-3] if has_heads else 1)


def _bytes(shape: Shape) -> float:
    return shape.bytes if shape.in_hbm else 0.0
