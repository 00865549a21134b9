"""The reward that SafeGuard-VL (arXiv 2603.01228) was released with, for reproduction.

Two parts, each of weight 1: accuracy in [0, 2] and format in {0, 1}.

| accuracy | think of >= 50 characters | without |
|---|---|---|
| right, gold safe | 1.7 | 1.2 |
| right, gold unsafe | 2.0 | 1.5 |
| wrong but readable | 1.0 | 0.5 |
| unreadable answer | 0.5 | 0.0 |

Its traps are kept, because they are what was run. Use `verdict_reward` for anything new.

* Format outweighs correctness: a well-shaped wrong answer earns 2.0 of 3.0; on safe pictures,
  wrong with a think block (1.0) is close to right without one (1.2).
* The first `<answer>` anywhere wins, also inside the think block, whatever follows; tags and
  words match in any case.
* Any 50 characters between think tags count as reasoning.
* The 2.0 / 1.7 gap cancels under group-std advantages: all answers of a group share the label.
* `format` lets its blocks contain further tags.

One thing is not kept: the original takes every label other than "safe" for unsafe; here a label
outside {safe, unsafe} is an error. No published number depends on it.
"""

from __future__ import annotations

import re
from typing import Literal

from guardjax.rewards.judged import gold_label
from guardjax.rewards.reward import Reward, per_row
from guardjax.types import PolicyExample

MIN_THINK_CHARS = 50
THINK_BONUS = 0.5

_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.IGNORECASE | re.DOTALL)
_THINK = re.compile(r"<think>(.*?)</think>", re.IGNORECASE | re.DOTALL)
_FORMAT = re.compile(r"<think>.*?</think>\s*<answer>.*?</answer>", re.DOTALL)

Vocabulary = Literal["yes_no", "safe_unsafe"]


def accuracy_reward(vocabulary: Vocabulary = "yes_no") -> Reward:
    """The accuracy part.

    Args:
      vocabulary: "yes_no" as released, where yes means compliant, that is safe; "safe_unsafe"
        reads the project's own answers, of which rules after a colon are ignored.

    Raises:
      ValueError: an unknown vocabulary; in the reward, a label outside {safe, unsafe}.
    """
    if vocabulary == "yes_no":
        words = {"yes": "safe", "no": "unsafe"}
    elif vocabulary == "safe_unsafe":
        words = {"safe": "safe", "unsafe": "unsafe"}
    else:
        raise ValueError(f"unknown vocabulary {vocabulary!r}")

    @per_row
    def safeguard_vl_accuracy(example: PolicyExample, completion: str) -> float | None:
        label = gold_label(example)
        if label is None:
            return None
        answer = _ANSWER.search(completion)
        word = answer.group(1).strip().lower() if answer else ""
        if vocabulary == "safe_unsafe":
            word = word.partition(":")[0].rstrip()
        verdict = words.get(word)
        if verdict is None:
            score = 0.0
        elif verdict != label:
            score = 0.5
        else:
            score = 1.2 if label == "safe" else 1.5
        think = _THINK.search(completion)
        if think and len(think.group(1).strip()) >= MIN_THINK_CHARS:
            score += THINK_BONUS
        return min(max(score, 0.0), 2.0)

    return safeguard_vl_accuracy


@per_row
def format_reward(example: PolicyExample, completion: str) -> float | None:
    """1 for a think block, then an answer block and nothing else; 0 otherwise."""
    if gold_label(example) is None:
        return None
    return float(_FORMAT.fullmatch(completion) is not None)
