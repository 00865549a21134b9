"""Our default reward: correctness gates everything, format only breaks ties."""

from __future__ import annotations

from collections.abc import Collection

from guardjax.rewards.judged import gold_label, read_verdict
from guardjax.rewards.reward import per_row
from guardjax.types import PolicyExample

RIGHT = 1.0
RIGHT_WITH_WRONG_RULES = 0.7
WRONG = 0.1
MALFORMED = 0.0


@per_row
def verdict_reward(example: PolicyExample, completion: str) -> float | None:
    """The reward of one completion; does not apply to examples without a label.

    | answer | reward |
    |---|---|
    | right verdict, right rules (or none asked for) | 1.0 |
    | right verdict, other rules | 0.7 + 0.3 * overlap |
    | wrong verdict, well-formed | 0.1 |
    | malformed, empty, two answers, a rule the policy lacks, ... | 0.0 |

    The overlap is that of the cited with the violated rules, |both| / |either|. (Under F1, citing
    all k rules would earn 2 / (k + 1) and beat an honest guess at one, 1 / k; here they tie.)
    A think block earns nothing by itself, so neither padding nor a copied policy pays.

    Raises:
      ValueError: a label outside {safe, unsafe}.
    """
    label = gold_label(example)
    if label is None:
        return None
    verdict = read_verdict(example, completion)
    if verdict.problem is not None:
        return MALFORMED
    if verdict.outcome != label:
        return WRONG
    if label == "safe" or not example.rule_ids:
        return RIGHT
    overlap = _overlap(verdict.rule_ids, example.rule_ids)
    return RIGHT_WITH_WRONG_RULES + (RIGHT - RIGHT_WITH_WRONG_RULES) * overlap


def _overlap(cited: Collection[str], violated: Collection[str]) -> float:
    return len(set(cited) & set(violated)) / len(set(cited) | set(violated))
