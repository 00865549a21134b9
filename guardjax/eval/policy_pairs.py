"""Which policies a guard tells apart: a share for every pair of policies.

Cell (i, j) is over the pictures that policy i forbids and policy j allows: the share of them for
which both verdicts are right. It is the policy shift score (`metrics.pss`) of two policies alone,
so a guard that answers the picture and not the policy has 0 everywhere.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from guardjax.eval.records import Prediction


@dataclasses.dataclass(frozen=True)
class PolicyPairs:
    """Policies by name, in order; `shares` and `counts` are `[P, P]`, NaN and 0 without a pair."""

    policies: tuple[str, ...]
    shares: np.ndarray      # float64
    counts: np.ndarray      # int, pairs of verdicts


def policy_pairs(rows: Sequence[Prediction], policy_of: Mapping[str, str] | None = None, *,
                 limit: int = 12) -> PolicyPairs:
    """The pairs of one variant's verdicts on one split; both verdicts of a pair are of one seed.

    Args:
      rows: predictions; those that are no verdicts are left out.
      policy_of: example id -> policy's name, where that is not `policy_id`.
      limit: at most so many policies, those with most pairs.
    """
    rows = [row for row in rows if row.judged]
    named = [policy_of[row.example_id] if policy_of else row.policy_id for row in rows]
    policies, images = sorted(set(named)), sorted({(row.seed, row.image_id) for row in rows})
    places = {name: i for i, name in enumerate(policies)}
    image_places = {name: i for i, name in enumerate(images)}
    # [forbidden / allowed, all / right, pictures of a seed, policies]
    cells = np.zeros((2, 2, len(images), len(policies)))
    for row, name in zip(rows, named, strict=True):
        side = int(row.label == "safe")
        place = (image_places[row.seed, row.image_id], places[name])
        cells[side, 0][place] += 1
        cells[side, 1][place] += row.right
    counts, right = (cells[0, k].T @ cells[1, k] for k in (0, 1))
    with np.errstate(invalid="ignore"):
        shares = np.where(counts > 0, right / counts, np.nan)
    total = counts.sum(axis=0) + counts.sum(axis=1)
    most = np.argsort(-total, kind="stable")[:limit]
    kept = np.sort([i for i in most if total[i]]).astype(int)
    return PolicyPairs(tuple(policies[i] for i in kept), shares[np.ix_(kept, kept)],
                       counts[np.ix_(kept, kept)].astype(int))
