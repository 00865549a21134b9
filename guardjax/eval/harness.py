"""Which (picture, policy) cells are asked, and what a guard answers to them."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Container, Iterator, Sequence

import numpy as np

from guardjax.data import tasks
from guardjax.eval.guard import Guard
from guardjax.eval.records import Prediction, predict_row
from guardjax.eval.scoring import Reply, ScoringError
from guardjax.policies import Policy, PolicySplits, Wording, load_ladder, parse_verdict
from guardjax.types import PolicyExample
from guardjax.world.builder import WorldRecord

MakeExample = Callable[..., PolicyExample]


@dataclasses.dataclass(frozen=True)
class Question:
    """One cell of an evaluation: the split that it counts towards, and the example."""

    split: str
    example: PolicyExample


def policy_questions(
    records: Sequence[WorldRecord],
    splits: PolicySplits,
    split: str,
    *,
    per_pair: int = 4,
    seed: int = 0,
    make: MakeExample = tasks.judge,
    name: str | None = None,
) -> list[Question]:
    """Both members of each edited pair under `per_pair` policies of a split.

    For each pair the policies are drawn in turn among those that tell its members apart, that
    flag both and that flag neither, so that labels are balanced and every picture meets policies
    that disagree. `records` 2k and 2k + 1 are the members of pair k.
    """
    rng = np.random.default_rng(seed)
    policies = splits.policies(split)
    questions = []
    for first in range(0, len(records), 2):
        pair = (records[first], records[first + 1])
        for index in _balanced(pair, policies, per_pair, rng):
            wording = splits.wording(split, index)
            questions += [Question(name or split, make(record, policies[index], wording))
                          for record in pair]
    return questions


def ladder_questions(
    records: Sequence[WorldRecord], *, make: MakeExample = tasks.judge
) -> list[Question]:
    """Every picture under every level of the ladder."""
    return [Question("ladder", make(record, policy, Wording(0)))
            for record in records for policy in load_ladder().values()]


def retention_questions(
    records: Sequence[WorldRecord], split: str = "test", seed: int = 0
) -> list[Question]:
    """One caption and one question a picture: what the model could do before."""
    rng = np.random.default_rng(seed)
    return [Question(split, example) for record in records
            for example in (tasks.caption(record), tasks.question(record, rng))]


def ask(
    guard: Guard, questions: Sequence[Question], *, variant: str, seed: int = 0, model: str = ""
) -> list[Prediction]:
    """The guard's predictions, in order.

    Raises:
      ScoringError: a guard that scores verdicts is asked something that is answered in words.
    """
    replies = guard.answer_examples([question.example for question in questions])
    return [_prediction(question, Reply(*reply), model=model or guard.model_hash, variant=variant,
                        seed=seed) for question, reply in zip(questions, replies, strict=True)]


def ask_batches(
    guard: Guard, questions: Sequence[Question], *, variant: str, seed: int = 0,
    answered: Container[int] = (),
) -> Iterator[list[Prediction]]:
    """The guard's predictions as they come, a batch at a time, less those at places `answered`.

    They are those of `ask`, bit for bit, whatever is answered (`Guard.answer_batches`); of a batch
    that is answered in part, the rest.

    Raises:
      ScoringError: as `ask`.
    """
    examples = [question.example for question in questions]
    for places, replies in guard.answer_batches(examples, answered):
        yield [_prediction(questions[place], reply, model=guard.model_hash, variant=variant,
                           seed=seed)
               for place, reply in zip(places, replies, strict=True) if place not in answered]


def digest(questions: Sequence[Question]) -> str:
    """16 hex digits over what is asked: results compare only where this is equal."""
    found = hashlib.sha256()
    for question in questions:
        example = question.example
        found.update("\0".join((
            question.split, example.kind, example.example_id, example.policy_text,
            example.question, str(example.label), str(example.facts.get("scene", "")))).encode())
        if example.image is not None:
            found.update(example.image.tobytes())
    return found.hexdigest()[:16]


def _prediction(question: Question, reply: Reply, *, model: str, variant: str, seed: int
                ) -> Prediction:
    example, verdict = question.example, reply.verdict
    if example.label is None and verdict is not None:
        raise ScoringError(f"{example.example_id} is answered in words, not by one token: ask it "
                           "with scoring 'reasoned'")
    if example.label is not None and verdict is None:
        verdict = parse_verdict(reply.text, example.facts.get("rules"), truncated=reply.truncated)
    return predict_row(
        example, reply.text, verdict, model=model, variant=variant, seed=seed,
        split=question.split, p_unsafe=None if reply.score is None else reply.score.p_unsafe,
        prompt_tokens=reply.prompt_tokens, answer_tokens=reply.answer_tokens)


def _balanced(
    pair: tuple[WorldRecord, WorldRecord], policies: Sequence[Policy], number: int,
    rng: np.random.Generator,
) -> list[int]:
    groups: dict[str, list[int]] = {"differ": [], "unsafe": [], "safe": []}
    for index in rng.permutation(len(policies)):
        first, second = (policies[index].judge(record.attributes).verdict for record in pair)
        groups["differ" if first != second else first].append(int(index))
    chosen: list[int] = []
    while len(chosen) < number and any(groups.values()):
        for group in ("differ", "unsafe", "differ", "safe"):
            if groups[group] and len(chosen) < number:
                chosen.append(groups[group].pop())
    return chosen
