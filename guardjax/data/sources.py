"""Training batches by index: pictures meet policies.

A source is random-access and pure: batch `i` follows from the seed and `i`, so a grain iterator
over it resumes exactly by its position alone. Judged prompts come two by two with opposite
labels, so that no constant verdict earns more than half: one picture under two policies that
disagree (a flip), or both members of an edited pair under one policy (an edit).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import grain
import numpy as np

from guardjax.data import tasks
from guardjax.data.batching import Batcher
from guardjax.data.branching import branch_prompts
from guardjax.data.under_many import DrawPolicy, edits, flips
from guardjax.policies import (
    TRAIN_SHAPES,
    Policy,
    PolicySplits,
    Rule,
    Shape,
    Wording,
)
from guardjax.types import PolicyExample, PromptBatch
from guardjax.world.builder import WorldRecord

_TRIES = 40
_SEEDS = 2**31
PLAIN_SHAPES = (Shape.CATEGORY, Shape.OBJECT)
# Kinds whose picture is told in words; "retell" and "ask" are "caption" and "quiz" so.
IN_WORDS = ("read", "study", "retell", "ask")
_STUDIED = 6  # rules of a text of kind "study"


class SourceError(ValueError):
    """A source that cannot give what it was asked for."""


@dataclasses.dataclass(frozen=True)
class Batch:
    """B examples of one kind, and their arrays.

    Each of several processes has all examples, since they follow from the batch's index, and of the
    arrays its own rows alone, in the shapes of the whole batch.
    """

    examples: tuple[PolicyExample, ...]
    prompts: PromptBatch
    tokens: np.ndarray      # [B, 1, T] int32, the supervised answers
    length: np.ndarray      # [B, 1] int32


def varied_policies(splits: PolicySplits, plain_share: float = 0.0) -> DrawPolicy:
    """Endless training policies in training words, about half of them about what is shown.

    `plain_share` of them have nothing but plain bans of objects and categories: what the other
    shapes are learned from.
    """

    def draw(rng: np.random.Generator, names: Sequence[str]) -> tuple[Policy, Wording]:
        plain = plain_share > 0 and rng.random() < plain_share
        policy = splits.train_policy(
            int(rng.integers(_SEEDS)), tuple(names), PLAIN_SHAPES if plain else TRAIN_SHAPES)
        return policy, splits.wording("train", int(rng.integers(_SEEDS)), shuffle=True)

    return draw


def one_policy(policy: Policy) -> DrawPolicy:
    """One policy, in every wording it has."""

    def draw(rng: np.random.Generator, names: Sequence[str]) -> tuple[Policy, Wording]:
        del names
        return policy, Wording(int(rng.integers(_SEEDS)))

    return draw


class BatchSource:
    """Batch `i` of a stage, as grain takes it. Each batch holds one kind of example."""

    def __init__(
        self,
        records: Sequence[WorldRecord],
        draw_policy: DrawPolicy,
        batcher: Batcher,
        *,
        mixture: Mapping[str, float],
        batch: int,
        num_batches: int,
        seed: int,
        think: bool = False,
        flip_share: float = 0.5,
        spell_share: float = 0.0,
        house: Policy | None = None,
        policies_per_image: int = 1,
        rows: slice = slice(None),
    ) -> None:
        """`records` 2k and 2k + 1 are the members of pair k; `batch` must be even.

        With `policies_per_image` M > 1, which is even and 2 * M divides `batch`, batches of kind
        "judge" have M policies for each picture, from which their prompts branch.

        `house` is the policy that examples of kind "habit" are judged by. `rows` are those of each
        batch whose arrays are made, see `Batch`: of whole pictures where prompts branch.
        """
        if batch % 2:
            raise SourceError(
                f"batch={batch} is odd; judged prompts come in pairs, give an even one")
        self._records, self._draw, self._batcher = records, draw_policy, batcher
        self._kinds = [kind for kind, weight in mixture.items() if weight > 0]
        weights = np.array([mixture[kind] for kind in self._kinds], float)
        self._weights = weights / weights.sum()
        self._batch, self._num, self._seed = batch, num_batches, seed
        self._think, self._flip_share = think, flip_share
        self._spell_share, self._house, self._rows = spell_share, house, rows
        self._many = policies_per_image

    def __len__(self) -> int:
        return self._num

    def __getitem__(self, index: int) -> Batch:
        rng = np.random.default_rng((self._seed, int(index)))
        kind = self._kinds[rng.choice(len(self._kinds), p=self._weights)]
        branch = kind == "judge" and self._many > 1
        examples: list[PolicyExample] = []
        while len(examples) < self._batch:
            examples += self._two_under_many(rng) if branch else self._two(kind, rng)
        tokens, length = self._batcher.answers([[e.answer] for e in examples], self._rows,
                                               ids=[e.example_id for e in examples])
        prompts = (branch_prompts(self._batcher, examples, self._many, self._rows) if branch else
                   self._batcher.prompts(examples, self._rows))
        return Batch(tuple(examples), prompts, tokens, length)

    def _two_under_many(self, rng: np.random.Generator) -> list[PolicyExample]:
        """Two pictures under M policies each, as `under_many` has them."""
        asked = None
        if rng.random() < self._flip_share:
            pictures = [flips(self._records, self._draw, self._many, rng) for _ in range(2)]
            asked = None if None in pictures else [*pictures[0], *pictures[1]]
        asked = asked or edits(self._records, self._draw, self._many, rng)
        if asked is None:
            raise SourceError(
                f"no edited pair gets opposite labels from {self._many} of these policies; lower "
                "policies_per_image, build more pairs or choose policies that flag something the "
                "pictures show")
        return [tasks.judge(r, p, w, think=self._think) for r, p, w in asked]

    def _two(self, kind: str, rng: np.random.Generator) -> list[PolicyExample]:
        if kind in ("judge", "read"):
            chosen = self._flip(rng) if rng.random() < self._flip_share else self._edit(rng)
            examples = [tasks.judge(r, p, w, think=self._think) for r, p, w in chosen]
            records = [record for record, _, _ in chosen]
        elif kind == "habit":
            return [self._habit(verdict, rng) for verdict in ("safe", "unsafe")]
        else:
            records = [self._records[int(rng.integers(len(self._records)))] for _ in range(2)]
            examples = [self._about(kind, record, rng) for record in records]
        if kind not in IN_WORDS:
            return examples
        return [tasks.in_words(example, kind, self._tell(record, rng))
                for example, record in zip(examples, records, strict=True)]

    def _about(self, kind: str, record: WorldRecord, rng: np.random.Generator) -> PolicyExample:
        """An example that needs no policy of its own choice."""
        if kind in ("caption", "retell"):
            return tasks.caption(record)
        if kind == "study":
            return self._study(record, rng)
        if kind in ("quiz", "ask"):
            return tasks.quiz(record, rng)
        return tasks.question(record, rng)

    def _tell(self, record: WorldRecord, rng: np.random.Generator) -> str:
        """A scene in words, as a sentence or spelled out."""
        spelled = rng.random() < self._spell_share
        return tasks.spell(record, rng) if spelled else tasks.describe(record)

    def _study(self, record: WorldRecord, rng: np.random.Generator) -> PolicyExample:
        """Rules of several policies over one scene."""
        clauses: list[tuple[Rule, Wording]] = []
        while len(clauses) < _STUDIED:
            policy, wording = self._draw(rng, record.objects)
            clauses += [(rule, wording) for rule in policy.rules]
        return tasks.study(record, clauses[:_STUDIED])

    def _habit(self, verdict: str, rng: np.random.Generator) -> PolicyExample:
        """A picture of which the house policy says `verdict`, under some other policy."""
        for _ in range(_TRIES):
            record = self._records[int(rng.integers(len(self._records)))]
            if self._house.judge(record.attributes).verdict == verdict:
                policy, wording = self._draw(rng, record.objects)
                return tasks.habit(record, policy, wording, self._house, rng)
        raise SourceError(f"no picture in {_TRIES} draws is {verdict} under policy "
                          f"{self._house.id!r}; choose another house policy")

    def _flip(self, rng: np.random.Generator) -> list[tuple[WorldRecord, Policy, Wording]]:
        """One picture, two policies that disagree; an edit where no two policies do."""
        for _ in range(_TRIES):
            record = self._records[int(rng.integers(len(self._records)))]
            found: dict[str, tuple[WorldRecord, Policy, Wording]] = {}
            for _ in range(4):
                policy, wording = self._draw(rng, record.objects)
                found.setdefault(policy.judge(record.attributes).verdict, (record, policy, wording))
                if len(found) == 2:
                    return list(found.values())
        return self._edit(rng)

    def _edit(self, rng: np.random.Generator) -> list[tuple[WorldRecord, Policy, Wording]]:
        """Both members of an edited pair under a policy that tells them apart.

        Policies that flag nothing (level L1) get any pair: both of its members are safe.
        """
        labels: set[str] = set()
        for attempt in range(10 * _TRIES):
            first = 2 * int(rng.integers(len(self._records) // 2))
            before, after = self._records[first], self._records[first + 1]
            # Sorted: the order of a set differs from process to process.
            changed = tuple(sorted(set(before.objects) ^ set(after.objects)))
            policy, wording = self._draw(rng, changed)
            verdicts = {policy.judge(r.attributes).verdict for r in (before, after)}
            labels |= verdicts
            if len(verdicts) == 2 or (attempt == _TRIES and labels == {"safe"}):
                return [(before, policy, wording), (after, policy, wording)]
        raise SourceError(
            f"no edited pair in {10 * _TRIES} draws gets opposite labels from these policies; "
            "build more pairs or choose policies that flag something the pictures show"
        )


def iterate(source: Any, threads: int = 2) -> grain.DatasetIterator:
    """A checkpointable iterator over the batches in order; the next ones are made ahead."""
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
    return iter(grain.MapDataset.source(source).to_iter_dataset(options))
