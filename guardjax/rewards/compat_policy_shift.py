"""The pair reward of PolicyShiftGuard (arXiv 2607.05910), the strongest rival's, as a control.

Two parts, each of weight 1. `verdict` is about the answer alone:

| answer | reward |
|---|---|
| not readable | -2.0 |
| gold safe: safe | 0.2 + 1.0 |
| gold safe: unsafe (false positive) | 0.2 - 1.5 |
| gold unsafe: unsafe, right category | 0.2 + 1.5 |
| gold unsafe: unsafe, wrong category | 0.2 - 0.5 |
| gold unsafe: safe (miss) | 0.2 - 1.5 |

`contrast` holds it against every answer that was sampled for a counterpart, an example with the
opposite label, and is the mean over them:

| this answer and the other | reward |
|---|---|
| both right | 0.7, and 0.2 more if this one is to be unsafe |
| the same label twice | -0.8 |
| both wrong, the labels reversed | -0.8 |

The numbers are the authors' (their repository). What follows is our reading, as their answers are
`true | <category>` or `false` and ours cite rules:

* The category is right where every cited rule is broken: theirs names one category, though several
  may block. A rule that the policy lacks makes the answer unreadable.
* An unreadable answer has no label, so no contrast is made with it: its own contrast does not
  apply, and as a counterpart it counts as 0.
* Their counterparts are one picture under two policies. Ours are also the two members of an edited
  pair under one policy (`counterparts`), as our batches have both.
* Counterparts weigh equally, whatever their number of answers.

A trap comes with it, so take `verdict_reward` for anything new: a wrong verdict earns -0.8 whatever
the counterpart says, hence -1.3 - 0.8 = -2.1 beside readable counterparts, and an unreadable answer
-2.0. Where a model is more likely wrong than right, it pays to write nothing readable.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from guardjax.rewards.counterparts import counterparts
from guardjax.rewards.judged import gold_label, read_verdict
from guardjax.rewards.reward import per_row
from guardjax.types import PolicyExample

UNREADABLE = -2.0
FORMAT = 0.2
SAFE_RIGHT, FALSE_POSITIVE = 1.0, -1.5
BLOCK_RIGHT, WRONG_CATEGORY, MISS = 1.5, -0.5, -1.5
CONTRAST, CONTRAST_BLOCK = 0.7, 0.2
SAME_LABEL, REVERSED = -0.8, -0.8


@per_row
def shift_verdict(example: PolicyExample, completion: str) -> float | None:
    """The part about the answer alone; does not apply to examples without a label.

    Raises:
      ValueError: a label outside {safe, unsafe}.
    """
    label = gold_label(example)
    if label is None:
        return None
    verdict = read_verdict(example, completion)
    if verdict.problem is not None:
        return UNREADABLE
    if label == "safe":
        return FORMAT + (SAFE_RIGHT if verdict.outcome == "safe" else FALSE_POSITIVE)
    if verdict.outcome == "safe":
        return FORMAT + MISS
    return FORMAT + (BLOCK_RIGHT if set(verdict.rule_ids) <= set(example.rule_ids)
                     else WRONG_CATEGORY)


def shift_contrast(
    examples: Sequence[PolicyExample], completions: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """The part about pairs of answers.

    Returns:
      (value [n] float64 in [-0.8, 0.9], applies [n] bool); it applies to readable answers whose
      example has a counterpart.

    Raises:
      ValueError: a label outside {safe, unsafe}.
    """
    said = [_said(*row) for row in zip(examples, completions, strict=True)]
    value = np.zeros(len(examples), np.float64)
    applies = np.zeros(len(examples), bool)
    for members, others in counterparts(examples):
        label = gold_label(examples[members[0]])
        for row in members if others else ():
            if said[row] is not None:
                applies[row] = True
                value[row] = np.mean([
                    np.mean([_contrast(label, said[row], said[other]) for other in rows])
                    for rows in others])
    return value, applies


def _said(example: PolicyExample, completion: str) -> str | None:
    """The answer's label, None where it cannot be read."""
    verdict = read_verdict(example, completion)
    return None if verdict.problem is not None else str(verdict.outcome)


def _contrast(label: str, said: str, other: str | None) -> float:
    """What an answer earns by one of a counterpart, whose label is the other one."""
    if other is None:
        return 0.0
    if said == other:
        return SAME_LABEL
    if said != label:
        return REVERSED
    return CONTRAST + (CONTRAST_BLOCK if label == "unsafe" else 0.0)
