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

    value = np.zeros(len(examples), np.float64)
    applies = np.zeros(len(examples), bool)
    for key, members in rows.items():
        example = examples[members[0]]
        rates = [
            accuracy[other]
            for other, others in rows.items()
            if _are_counterparts(example, examples[others[0]])
        ]
        if rates:
            applies[members] = True
            value[members] = right[members] * np.mean(rates)
    return value, applies


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
