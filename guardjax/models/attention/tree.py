"""Which token of a row sees which: the tree of segments, without an array of all pairs.

A row holds every segment of one prompt, one run after the other: the image, the policies under it,
the answers under each. A run has `branches` copies side by side (1, N, N * G, ...), each of
`tokens` tokens. A token sees its own branch up to itself, and of every earlier run the one branch
that its own hangs from.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import NamedTuple

import jax
import numpy as np

Array = jax.Array | np.ndarray

_NEVER = 2**30      # a rank behind all tokens


@dataclasses.dataclass(frozen=True)
class Run:
    """One segment in a row: `branches` stretches of `tokens` tokens."""

    branches: int
    tokens: int

    @property
    def size(self) -> int:
        return self.branches * self.tokens


class Spans(NamedTuple):
    """A query sees keys up to `places`, from `starts` on and those before `shared`."""

    shared: int
    starts: np.ndarray      # [Q] int
    places: np.ndarray      # [Q] int


@dataclasses.dataclass(frozen=True)
class SegmentTree:
    """The runs of a row, the first `first_query` of which are only seen and ask nothing.

    Each run's branches are a multiple of those of the run before. Hashable: it is the key under
    which a kernel's plan is kept.
    """

    runs: tuple[Run, ...]
    first_query: int = 0

    @property
    def num_keys(self) -> int:
        return sum(run.size for run in self.runs)

    @property
    def num_queries(self) -> int:
        return sum(run.size for run in self.runs[self.first_query:])

    def query_table(self, padded: int) -> np.ndarray:
        """[3, padded] int32: see `visible`. What is beyond the queries sees key 0 alone."""
        table = self._table[:, self.num_keys - self.num_queries:]
        fill = np.repeat(np.int32([[0], [1], [0]]), padded - self.num_queries, axis=1)
        return np.concatenate([table, fill], axis=1)

    def key_table(self, padded: int) -> np.ndarray:
        """[3, padded] int32: see `visible`. What is beyond the keys is seen by nothing."""
        fill = np.repeat(np.int32([[0], [1], [_NEVER]]), padded - self.num_keys, axis=1)
        return np.concatenate([self._table, fill], axis=1)

    def spans(self, padded: int) -> Spans | None:
        """What `query_table` says in three numbers, where answers branch from words all share.

        None where an earlier run branches too: its branches are not seen by all.
        """
        *shared, last = self.runs
        if any(run.branches > 1 for run in shared):
            return None
        end = sum(run.size for run in shared)
        places = np.arange(self.num_keys - self.num_queries, self.num_keys)
        starts = np.where(places < end, 0, places - (places - end) % last.tokens)
        missing = (0, padded - self.num_queries)    # which see key 0 alone
        return Spans(end, np.pad(starts, missing), np.pad(places, missing))

    @functools.cached_property
    def _table(self) -> np.ndarray:
        """[3, keys] int32: branch, branches of the run, and rank (place in an order of time)."""
        parts, start = [], 0
        for run in self.runs:
            branch, token = np.divmod(np.arange(run.size), run.tokens)
            parts.append([branch, np.full(run.size, run.branches), start + token])
            start += run.tokens
        return np.concatenate(parts, axis=1).astype(np.int32)


def visible(queries: Array, keys: Array) -> Array:
    """[q, k] bool: whether a query sees a key, by columns [3, q] and [3, k] of the tables."""
    branch, branches, rank = (row[:, None] for row in queries)
    key_branch, key_branches, key_rank = (row[None, :] for row in keys)
    # The fill of `query_table` has fewer branches than most keys: never divide by 0.
    width = branches // key_branches
    ancestor = branch // (width + (width == 0))
    return (ancestor == key_branch) & (key_rank <= rank)
