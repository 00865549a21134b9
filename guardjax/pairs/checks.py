"""Whether two pictures are a pair: of one size, changed in one place, the rest as it was."""

from __future__ import annotations

import dataclasses

import numpy as np

BLOCK = 8       # pixels; editors change pictures by blocks, as codecs do


@dataclasses.dataclass(frozen=True)
class PairLimits:
    """What is still a minimal edit. Differences are means over a block of grey levels, of 255.

    The defaults are ours: an editor that writes every pixel anew stays below 6 where it kept what
    it was shown.
    """

    changed_above: float = 12.0     # a block that differs by more is changed
    most_changed: float = 0.5       # share of blocks
    rest_below: float = 6.0         # mean difference of the blocks that are not changed


@dataclasses.dataclass(frozen=True)
class PairCheck:
    """What was found; `problem` is "" for a pair."""

    changed: float                  # share of blocks
    rest: float                     # mean difference of the others, of 255
    problem: str = ""


def check_pair(before: np.ndarray, after: np.ndarray, limits: PairLimits = PairLimits()
               ) -> PairCheck:
    """Compares `[H, W, 3]` uint8 pictures."""
    if before.shape != after.shape:
        return PairCheck(1.0, 0.0, "the sizes differ: "
                                   f"{_size(before)} became {_size(after)}")
    blocks = _block_means(np.abs(before.astype(np.float32) - after.astype(np.float32)).mean(-1))
    changed = blocks > limits.changed_above
    share = float(changed.mean())
    rest = float(blocks[~changed].mean()) if not changed.all() else 0.0
    if not changed.any():
        return PairCheck(share, rest, "nothing was changed")
    if share > limits.most_changed:
        return PairCheck(share, rest, f"{100 * share:.0f} % of the picture changed, at most "
                                      f"{100 * limits.most_changed:.0f} % may")
    if rest > limits.rest_below:
        return PairCheck(share, rest, f"the rest differs by {rest:.1f} grey levels on average, at "
                                      f"most {limits.rest_below:g} may be")
    return PairCheck(share, rest)


def _block_means(values: np.ndarray) -> np.ndarray:
    """`[H, W]` to means over blocks; those at the right and lower edges may be smaller."""
    height, width = values.shape
    rows, columns = np.arange(0, height, BLOCK), np.arange(0, width, BLOCK)
    sums = np.add.reduceat(np.add.reduceat(values, rows, axis=0), columns, axis=1)
    sizes = np.outer(np.diff(np.append(rows, height)), np.diff(np.append(columns, width)))
    return sums / sizes


def _size(picture: np.ndarray) -> str:
    return f"{picture.shape[1]}x{picture.shape[0]}"
