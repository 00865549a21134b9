"""The blocks of a row: splash computes those in which anything is seen, and these whole."""

from __future__ import annotations

import itertools

from guardjax.models.attention.tree import SegmentTree, visible

_LANES = 128                # a row's length is a multiple of it
_SIDES = (512, 256, 128)    # sides of a block, the first that divides the row


def fill_up(length: int) -> int:
    """The length to which a row is filled up."""
    return -(-length // _LANES) * _LANES


def block_side(length: int) -> int:
    """The side of a block along a row that is filled up."""
    return next(side for side in _SIDES if length % side == 0)


def num_scores(tree: SegmentTree) -> int:
    """Scores of a head that are computed."""
    length, seen = fill_up(tree.num_queries), fill_up(tree.num_keys)
    queries, keys = tree.query_table(length), tree.key_table(seen)
    height, width = block_side(length), block_side(seen)
    corners = itertools.product(range(0, length, height), range(0, seen, width))
    return height * width * sum(
        bool(visible(queries[:, row:row + height], keys[:, column:column + width]).any())
        for row, column in corners)
