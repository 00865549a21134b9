"""A bonus for getting both sides of a contrast right: one image under two policies, or two edits.

This is our instantiation. PolicyShiftGuard (arXiv 2607.05910) rewards contrasts between the
rollouts of matched block / pass pairs (+0.7, with penalties of 0.8 for equal or reversed labels);
we keep the average over the counterpart's rollouts and drop the penalties, so that an honest
wrong answer never earns less for having a counterpart.
"""

from __future__ import annotations

import collections
from collections.abc import Hashable, Sequence

import numpy as np

from guardjax.rewards.judged import gold_label, read_verdict
from guardjax.types import PolicyExample


def pair_reward(
    examples: Sequence[PolicyExample], completions: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Share of the counterparts' completions that are right, if this one is right; else 0.

    A counterpart is an example in the same batch with the opposite label and either the same
    image under another policy, or the other image of an edited pair under the same policy.
    Counterparts weigh equally, whatever their number of completions. A completion is right if it
    is well-formed and its verdict is the label; rules do not matter here.

    Within a group the bonus is one constant for all right answers: it raises the stakes of
    examples whose counterpart is being answered rightly too, and a model that always says the
    same gets none of it.

    Returns:
      (value [n] float64 in [0, 1], applies [n] bool); it applies where there is a counterpart.

    Raises:
      ValueError: a label outside {safe, unsafe}.
    """
    right = np.array(
        [_is_right(*row) for row in zip(examples, completions, strict=True)], np.float64
    )
    rows: dict[Hashable, list[int]] = collections.defaultdict(list)
    for row, example in enumerate(examples):
        rows[example.image_id, example.policy_id, example.example_id].append(row)
    accuracy = {key: right[members].mean() for key, members in rows.items()}
    # Only examples that share an image or an edited pair are held against each other.
    related: dict[Hashable, list[Hashable]] = collections.defaultdict(list)
    for key, members in rows.items():
        for name in _relations(examples[members[0]]):
            related[name].append(key)

    value = np.zeros(len(examples), np.float64)
    applies = np.zeros(len(examples), bool)
    for key, members in rows.items():
        example = examples[members[0]]
        # A dict, not a set: the order of summation must not change between runs.
        others = dict.fromkeys(k for name in _relations(example) for k in related[name])
        rates = [accuracy[k] for k in others if _are_counterparts(example, examples[rows[k][0]])]
        if rates:
            applies[members] = True
            value[members] = right[members] * np.mean(rates)
    return value, applies


def _relations(example: PolicyExample) -> list[tuple[str, str]]:
    named = [("image", example.image_id), ("pair", example.pair_id)]
    return [(kind, value) for kind, value in named if value]


def _is_right(example: PolicyExample, completion: str) -> bool:
    verdict = read_verdict(example, completion)
    return verdict.problem is None and verdict.outcome == gold_label(example)


def _are_counterparts(one: PolicyExample, other: PolicyExample) -> bool:
    if {gold_label(one), gold_label(other)} != {"safe", "unsafe"}:
        return False
    same_image = bool(one.image_id) and one.image_id == other.image_id
    same_policy = bool(one.policy_id) and one.policy_id == other.policy_id
    same_pair = bool(one.pair_id) and one.pair_id == other.pair_id
    return same_image != same_policy and (same_image or same_pair)
