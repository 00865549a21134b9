"""One way to measure a guard, for the verbs that do: the questions, and who looked at test."""

from __future__ import annotations

import dataclasses
import datetime
import pathlib
from collections.abc import Mapping, Sequence

from guardjax.eval.controls import remove_images, shuffle_policies, tell_in_words
from guardjax.eval.harness import (
    Question,
    ladder_questions,
    policy_questions,
    retention_questions,
)
from guardjax.policies import PolicySplits
from guardjax.train.jsonl import JsonLinesFile
from guardjax.world import builder, catalogue
from guardjax.world.builder import WorldRecord

LOOKS_FILE = "looks.jsonl"
HELD_OUT_POLICIES = ("test_wordings", "test_categories", "test_shapes")
HELD_OUT_WORLDS = ("test_artist", "test_background", "test_object")


@dataclasses.dataclass(frozen=True)
class Plan:
    """How many edited pairs of the world each part of the evaluation takes.

    Everything held out belongs to the split "test" and is left out of any other, so that looking
    at dev never is a look at test.
    """

    policies: int = 50      # under 4 policies each: 8 prompts a pair
    ladder: int = 10        # under 5 levels each: 10 prompts a pair
    retention: int = 25     # a caption and a question of each picture: 4 prompts a pair
    held_out: int = 0       # under 4 policies of each held-out split of policies
    controls: int = 0       # of the pairs of `policies`: each of the three controls
    worlds: int = 0         # of each held-out split of the world: 8 prompts a pair, 4 of retention


# What a row of the experiment is measured with: 6,100 prompts on test, 3,100 on dev.
FULL = Plan(policies=100, ladder=50, retention=150, held_out=50, controls=50, worlds=50)
# At most 400 prompts.
SHORT = Plan(policies=24, ladder=10, retention=20)


def test_records(directory: pathlib.Path, split: str, pairs: int) -> list[WorldRecord]:
    """The first `pairs` edited pairs of a split."""
    source = builder.load(directory, split)
    return [source[i] for i in range(min(2 * pairs, len(source)))]


def evaluation_world(cache: pathlib.Path, plan: Plan, split: str = "test") -> pathlib.Path:
    """The build of the world that a plan needs, made if need be; of no use for training."""
    sizes = {split: max(plan.policies, plan.ladder, plan.retention, plan.held_out, 1)}
    if split == "test" and plan.worlds:
        sizes |= dict.fromkeys(HELD_OUT_WORLDS, plan.worlds)
    return builder.build(cache / "world", sizes)


def harm_of(records: Sequence[WorldRecord]) -> dict[str, str]:
    """Picture -> its first harmful category by name; none if it is harmless."""
    found = {}
    for record in records:
        harmful = sorted({catalogue.CATEGORY_OF[name] for name in record.objects}
                         & set(catalogue.HARMFUL))
        if harmful:
            found[record.scene_id] = harmful[0]
    return found


def left_out(directory: pathlib.Path) -> Mapping[str, str]:
    """Splits that this machine cannot draw -> why."""
    return builder.check_complete(directory)["left_out"]


def plan_questions(
    directory: pathlib.Path, splits: PolicySplits, plan: Plan, split: str = "test"
) -> list[Question]:
    """All questions of a plan over one split of the world.

    "dev" is asked under the dev policies and every other split under the test policies. The
    policy questions and those of retention count towards `split`, levels of the ladder towards
    "ladder", and each control and held-out split towards a name of its own. A held-out world that
    the build does not have is left out; `left_out` says which and why.
    """
    most = max(plan.policies, plan.ladder, plan.retention, plan.held_out, plan.controls)
    records = test_records(directory, split, most)
    policies = "dev" if split == "dev" else "test"
    main = policy_questions(records[:2 * plan.policies], splits, policies, name=split)
    questions = main + ladder_questions(records[:2 * plan.ladder])
    questions += retention_questions(records[:2 * plan.retention], split)
    if plan.controls:
        chosen = {record.scene_id for record in records[:2 * plan.controls]}
        some = [question for question in main if question.example.image_id in chosen]
        questions += shuffle_policies(some) + remove_images(some) + tell_in_words(some, records)
    if split != "test":
        return questions
    for name in HELD_OUT_POLICIES:
        questions += policy_questions(records[:2 * plan.held_out], splits, name)
    for name in HELD_OUT_WORLDS:
        if plan.worlds and name in builder.splits(directory):
            seen = test_records(directory, name, plan.worlds)
            questions += policy_questions(seen, splits, "test", name=name)
            questions += retention_questions(seen, name)
    return questions


def log_look(out: pathlib.Path, row: str, seed: int, model_hash: str, prompts: int) -> None:
    """Adds a line to `looks.jsonl`: who looks at test, how often, is to be known afterwards."""
    JsonLinesFile(out / LOOKS_FILE).append({
        "row": row, "seed": seed, "model": model_hash, "prompts": prompts,
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")})
