"""A bonus for getting both sides of a contrast right: one image under two policies, or two edits.

This is our instantiation. PolicyShiftGuard (arXiv 2607.05910) rewards contrasts between the
rollouts of matched block / pass pairs (+0.7, with penalties of 0.8 for equal or reversed labels;
`compat_policy_shift.py` has it). We keep the average over the counterpart's rollouts and drop the
penalties, so that an honest wrong answer never earns less for having a counterpart.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from guardjax.rewards.counterparts import counterparts
from guardjax.rewards.judged import gold_label, read_verdict
from guardjax.types import PolicyExample


def pair_reward(
    examples: Sequence[PolicyExample], completions: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Share of the counterparts' completions that are right, if this one is right; else 0.

    `counterparts` says who is held against whom; they weigh equally, whatever their number of
    completions. A completion is right if it is well-formed and its verdict is the label; rules do
    not matter here.

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
    value = np.zeros(len(examples), np.float64)
    applies = np.zeros(len(examples), bool)
    for members, others in counterparts(examples):
        if others:
            applies[members] = True
            value[members] = right[members] * np.mean([right[other].mean() for other in others])
    return value, applies


def _is_right(example: PolicyExample, completion: str) -> bool:
    verdict = read_verdict(example, completion)
    return verdict.problem is None and verdict.outcome == gold_label(example)
