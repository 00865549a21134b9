"""What the model is asked about one scene: to judge, to read, to describe, to answer.

Every maker returns a `PolicyExample`; question words are trusted, policy text is data.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from guardjax.data.prompts import JUDGE_QUESTION
from guardjax.policies import Policy, Wording, format_verdict
from guardjax.types import PolicyExample
from guardjax.world.builder import WorldRecord

CAPTION_QUESTION = "what is in the picture?"


def judge(
    record: WorldRecord, policy: Policy, wording: Wording, *, think: bool = False
) -> PolicyExample:
    """The main job: this picture under this policy. The label is executed, never annotated."""
    label = policy.judge(record.attributes)
    rationale = describe(record) if think else None
    return PolicyExample(
        example_id=f"{record.scene_id}/{policy.id}",
        kind="judge",
        question=JUDGE_QUESTION,
        policy_text=policy.render(wording),
        image=record.image,
        answer=format_verdict(label, rationale=rationale),
        label=label.verdict,
        rule_ids=label.rule_ids,
        image_id=record.scene_id,
        policy_id=policy.id,
        pair_id=record.pair_id,
        facts={"rules": tuple(rule.id for rule in policy.rules)},
    )


def read(
    record: WorldRecord, policy: Policy, wording: Wording, *, think: bool = False
) -> PolicyExample:
    """The same question with the picture told in words (oracle sight)."""
    example = judge(record, policy, wording, think=think)
    return dataclasses.replace(
        example,
        kind="read",
        image=None,
        facts={**example.facts, "scene": describe(record)},
    )


def caption(record: WorldRecord) -> PolicyExample:
    """Describe the picture."""
    return PolicyExample(
        example_id=f"{record.scene_id}/caption",
        kind="caption",
        question=CAPTION_QUESTION,
        image=record.image,
        answer=describe(record),
        image_id=record.scene_id,
        pair_id=record.pair_id,
    )


def question(record: WorldRecord, rng: np.random.Generator) -> PolicyExample:
    """One of the scene's questions, drawn by `rng`."""
    index = int(rng.integers(len(record.questions)))
    asked, answer = record.questions[index]
    return PolicyExample(
        example_id=f"{record.scene_id}/question{index}",
        kind="question",
        question=asked,
        image=record.image,
        answer=f" {answer}",
        image_id=record.scene_id,
        pair_id=record.pair_id,
    )


def describe(record: WorldRecord) -> str:
    """The scene in words. It begins with a space, so that the first name is the same token as the others."""
    return f" {record.caption}"
