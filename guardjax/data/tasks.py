"""What the model is asked about one scene: to judge, to read, to study, to describe, to answer.

Every maker returns a `PolicyExample`; question words are trusted, policy text is data.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from guardjax.data.prompts import CAPTION_QUESTION, JUDGE_QUESTION
from guardjax.data.quiz import QUIZ_QUESTION, quiz_text
from guardjax.policies import Label, Policy, Rule, Wording, format_verdict
from guardjax.types import PolicyExample
from guardjax.world.builder import WorldRecord

STUDY_QUESTION = "rule by rule?"


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
    return in_words(judge(record, policy, wording, think=think), "read", describe(record))


def habit(
    record: WorldRecord, policy: Policy, wording: Wording, house: Policy, rng: np.random.Generator
) -> PolicyExample:
    """A picture judged by `house` while `policy` is shown: a memorised policy, to be unlearned.

    An unsafe verdict cites some rule of the policy shown. It has no label: it is not right.
    """
    verdict = house.judge(record.attributes).verdict
    cited = (policy.rules[int(rng.integers(len(policy.rules)))].id,) if verdict == "unsafe" else ()
    return dataclasses.replace(
        judge(record, policy, wording), kind="habit", example_id=f"{record.scene_id}/habit",
        answer=format_verdict(Label(verdict, cited)), label=None, rule_ids=())


def in_words(example: PolicyExample, kind: str, scene: str) -> PolicyExample:
    """The same example with the picture told in words: `scene` stands in the picture's place."""
    facts = {**example.facts, "scene": scene}
    return dataclasses.replace(example, kind=kind, image=None, facts=facts)


def study(record: WorldRecord, clauses: Sequence[tuple[Rule, Wording]]) -> PolicyExample:
    """A scene in words, then many rules one by one, each followed by whether the scene keeps it.

    A verdict is about one bit for a whole sequence; this text has one bit for every few tokens,
    and each is about one rule alone. A tiny model that learns no reading from verdicts learns it
    from this within minutes (experiments/safeguard_vl).
    """
    lines = []
    for rule, wording in clauses:
        verdict = "unsafe" if rule.violated(record.attributes) else "safe"
        lines.append(f" {rule.render(wording)}:{verdict}.")
    return PolicyExample(
        example_id=f"{record.scene_id}/study",
        kind="study",
        question=STUDY_QUESTION,
        answer="".join(lines),
        image_id=record.scene_id,
        pair_id=record.pair_id,
        facts={"scene": describe(record)},
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


def quiz(record: WorldRecord, rng: np.random.Generator) -> PolicyExample:
    """Many questions about the picture in one text, drawn by `rng`, each with its answer."""
    return PolicyExample(
        example_id=f"{record.scene_id}/quiz",
        kind="quiz",
        question=QUIZ_QUESTION,
        image=record.image,
        answer=quiz_text(record, rng),
        image_id=record.scene_id,
        pair_id=record.pair_id,
    )


def spell(record: WorldRecord, rng: np.random.Generator) -> str:
    """The scene as a tower that names every image token would say it: " garden dog dog garden hat".

    Names in reading order, each once to three times, with the background between them, and no
    punctuation: a step from reading words to reading pictures.
    """
    words: list[str] = []
    for name in record.objects:
        words += _background(record, rng)
        words += [name] * int(rng.integers(1, 4))
    words += _background(record, rng)
    return "".join(f" {word}" for word in words)


def _background(record: WorldRecord, rng: np.random.Generator) -> list[str]:
    choices = (record.place, record.place, record.place, record.light)
    return [choices[int(rng.integers(4))] for _ in range(int(rng.integers(0, 4)))]


def describe(record: WorldRecord) -> str:
    """The scene in words. It begins with a space: the first name is a token like the others."""
    return f" {record.caption}"
