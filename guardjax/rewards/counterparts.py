"""Who is held against whom: examples of one batch that differ in one thing and in their label."""

from __future__ import annotations

import collections
from collections.abc import Hashable, Sequence

from guardjax.rewards.judged import gold_label
from guardjax.types import PolicyExample


def counterparts(examples: Sequence[PolicyExample]) -> list[tuple[list[int], list[list[int]]]]:
    """Every example's rows, and the rows of each of its counterparts.

    A counterpart is an example in the same batch with the opposite label and either the same
    image under another policy, or the other image of an edited pair under the same policy.

    Args:
      examples: n examples; one with G completions stands G times.

    Returns:
      (rows, [rows of a counterpart, ...]) of every example, in order of first appearance, also of
      those that have no counterpart.

    Raises:
      ValueError: a label outside {safe, unsafe}.
    """
    rows: dict[Hashable, list[int]] = collections.defaultdict(list)
    for row, example in enumerate(examples):
        rows[example.image_id, example.policy_id, example.example_id].append(row)
    # Only examples that share an image or an edited pair are held against each other.
    related: dict[Hashable, list[Hashable]] = collections.defaultdict(list)
    for key, members in rows.items():
        for name in _relations(examples[members[0]]):
            related[name].append(key)
    found = []
    for members in rows.values():
        example = examples[members[0]]
        # A dict, not a set: the order of summation must not change between runs.
        others = dict.fromkeys(key for name in _relations(example) for key in related[name])
        found.append((members, [rows[key] for key in others
                                if _are_counterparts(example, examples[rows[key][0]])]))
    return found


def _relations(example: PolicyExample) -> list[tuple[str, str]]:
    named = [("image", example.image_id), ("pair", example.pair_id)]
    return [(kind, value) for kind, value in named if value]


def _are_counterparts(one: PolicyExample, other: PolicyExample) -> bool:
    if {gold_label(one), gold_label(other)} != {"safe", "unsafe"}:
        return False
    same_image = bool(one.image_id) and one.image_id == other.image_id
    same_policy = bool(one.policy_id) and one.policy_id == other.policy_id
    same_pair = bool(one.pair_id) and one.pair_id == other.pair_id
    return same_image != same_policy and (same_image or same_pair)
