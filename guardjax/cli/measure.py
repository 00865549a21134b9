"""One way to measure a guard, for the verbs that do: the questions, and the answers to them."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence

from guardjax.data import tasks
from guardjax.eval.guard import Guard
from guardjax.eval.harness import (
    Question,
    ask,
    ladder_questions,
    policy_questions,
    retention_questions,
)
from guardjax.eval.records import Prediction
from guardjax.policies import PolicySplits
from guardjax.world import builder
from guardjax.world.builder import WorldRecord

HELD_OUT = ("test_wordings", "test_categories", "test_shapes")


@dataclasses.dataclass(frozen=True)
class Plan:
    """How many edited pairs of the world's test split each part of the evaluation takes."""

    policies: int = 50      # under 4 test policies each: 8 prompts a pair
    ladder: int = 10        # under 5 levels each: 10 prompts a pair
    retention: int = 25     # a caption and a question of each picture: 4 prompts a pair
    held_out: int = 0       # under 4 policies of each held-out split
    words: int = 0          # the test policies with the picture told in words (oracle sight)


def test_records(directory: pathlib.Path, split: str, pairs: int) -> list[WorldRecord]:
    """The first `pairs` edited pairs of a split."""
    source = builder.load(directory, split)
    return [source[i] for i in range(min(2 * pairs, len(source)))]


def plan_questions(
    directory: pathlib.Path, splits: PolicySplits, plan: Plan, split: str = "test"
) -> list[Question]:
    """All questions of a plan over one split of the world."""
    most = max(plan.policies, plan.ladder, plan.retention, plan.held_out, plan.words)
    records = test_records(directory, split, most)
    questions = policy_questions(records[:2 * plan.policies], splits, "test")
    questions += ladder_questions(records[:2 * plan.ladder])
    questions += retention_questions(records[:2 * plan.retention])
    for name in HELD_OUT:
        questions += policy_questions(records[:2 * plan.held_out], splits, name)
    questions += policy_questions(
        records[:2 * plan.words], splits, "test", make=tasks.read, name="test_in_words")
    return questions


def measure(
    guard: Guard, questions: Sequence[Question], variant: str, seed: int
) -> list[Prediction]:
    """The guard's predictions on the questions."""
    return ask(guard, questions, variant=variant, seed=seed)
