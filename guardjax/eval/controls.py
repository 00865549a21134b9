"""Controls: the same questions with one thing taken away, so that a score says where it comes from.

Each takes any list of questions and gives back judged questions under another split's name, with
the labels of the true (picture, policy) kept. A guard that follows policies loses its score under
`shuffle_policies`, one that looks loses it under `remove_images`, and `tell_in_words` gives it
perfect sight.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np

from guardjax.data import tasks
from guardjax.eval.harness import Question
from guardjax.eval.tables import Column
from guardjax.types import PolicyExample
from guardjax.world.builder import WorldRecord

POLICY_SHUFFLED = "policy_shuffled"
IMAGE_REMOVED = "image_removed"
IN_WORDS = "in_words"
CONTROLS = (POLICY_SHUFFLED, IMAGE_REMOVED, IN_WORDS)


def control_name(split: str, control: str) -> str:
    """The split of a control's predictions: "test_policy_shuffled"."""
    return f"{split}_{control}"


def control_columns(split: str, metric: str = "pss") -> tuple[Column, ...]:
    """One metric as asked and under each control, side by side."""
    return (Column("as asked", split, metric), *(
        Column(control.replace("_", " "), control_name(split, control), metric)
        for control in CONTROLS))


def shuffle_policies(questions: Sequence[Question], seed: int = 0) -> list[Question]:
    """Every policy is shown as another one of the same questions, always the same other one.

    Label and policy id stay those of the true policy, so pairs of pictures and of policies are
    those of the original; the rules that an answer may cite are those of the policy shown.
    Deterministic in `seed`.

    Raises:
      ValueError: a split has only one policy, so there is no other.
    """
    asked = _judged(questions)
    shown: dict[tuple[str, str], PolicyExample] = {}
    for split in dict.fromkeys(q.split for q in asked):
        first: dict[str, PolicyExample] = {}
        for question in asked:
            if question.split == split:
                first.setdefault(question.example.policy_id, question.example)
        if len(first) < 2:
            raise ValueError(f"split {split!r} has one policy only; there is none to swap it with")
        # A cycle through a random order: nobody keeps its own policy.
        order = [list(first)[i] for i in np.random.default_rng(seed).permutation(len(first))]
        for place, policy in enumerate(order):
            shown[split, policy] = first[order[(place + 1) % len(order)]]
    return [_renamed(question, POLICY_SHUFFLED, policy_text=other.policy_text,
                     facts={**question.example.facts, "rules": other.facts["rules"]})
            for question in asked
            for other in [shown[question.split, question.example.policy_id]]]


def remove_images(questions: Sequence[Question]) -> list[Question]:
    """The policy alone, with neither picture nor words about it: what a blind guess earns."""
    return [_renamed(question, IMAGE_REMOVED, image=None, facts={
        key: value for key, value in question.example.facts.items() if key != "scene"})
        for question in _judged(questions)]


def tell_in_words(questions: Sequence[Question], records: Iterable[WorldRecord]) -> list[Question]:
    """The picture told in words, as `tasks.read` does; `records` are the pictures asked about.

    Raises:
      KeyError: a question is about a picture that is not among the records.
    """
    told = {record.scene_id: tasks.describe(record) for record in records}
    return [Question(control_name(question.split, IN_WORDS), tasks.in_words(
        question.example, "read", told[question.example.image_id]))
        for question in _judged(questions)]


def _judged(questions: Sequence[Question]) -> list[Question]:
    """Captions and questions have no policy, so no control applies to them."""
    return [question for question in questions if question.example.label is not None]


def _renamed(question: Question, control: str, **changes: object) -> Question:
    return Question(control_name(question.split, control),
                    dataclasses.replace(question.example, **changes))
