"""Edited pairs or single pictures to show, the policies they were judged under, and who said what.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from guardjax.eval.records import Prediction
from guardjax.policies import parse_verdict


@dataclasses.dataclass(frozen=True)
class Answer:
    """What one variant said about one picture under one policy."""

    variant: str
    outcome: str
    rule_ids: tuple[str, ...]
    rationale: str | None       # where the answer has none: None
    problem: str | None
    right: bool


@dataclasses.dataclass(frozen=True)
class Cell:
    """One picture under one policy: the gold label and the answers, one a variant."""

    label: str
    rule_ids: tuple[str, ...]
    answers: tuple[Answer, ...]


@dataclasses.dataclass(frozen=True)
class PolicyRow:
    """One policy and its cells, one a picture of the case."""

    policy_id: str
    title: str
    text: str
    cells: tuple[Cell, ...]


@dataclasses.dataclass(frozen=True)
class Picture:
    """A picture `[H, W, 3]` uint8 with a word about it, such as "before the edit".

    `veiled` is for pictures of real data: a page blurs them until the reader asks.
    """

    image: np.ndarray
    caption: str
    veiled: bool = False


@dataclasses.dataclass(frozen=True)
class Case:
    """An edited pair, or one picture, and every policy that is shown with it."""

    pair_id: str        # of a single picture its own id
    note: str
    pictures: tuple[Picture, ...]
    policies: tuple[PolicyRow, ...]

    @property
    def flips(self) -> bool:
        """Whether one picture has different labels under two of the policies."""
        labels = [[cell.label for cell in row.cells] for row in self.policies]
        return any(len(set(column)) > 1 for column in zip(*labels, strict=True))


def gallery_cases(
    predictions: Iterable[Prediction], pictures: Mapping[str, Picture],
    policies: Mapping[str, tuple[str, str]], *, variants: Sequence[str], limit: int = 12,
    policies_per_case: int = 3, notes: Mapping[str, str] | None = None,
) -> list[Case]:
    """Chooses pairs to show, the most telling first, none twice, right and wrong answers alike.

    A picture that belongs to no pair is a case of its own.

    Args:
      predictions: judged rows of one split and one seed.
      pictures: image id -> picture, the members of a pair in the order to show them; pairs
        without both are left out. Only those that are chosen are looked up.
      policies: policy id -> (title, text as shown to the model).
      variants: whose answers to show, in this order. A cell needs an answer of each. The last
        one's decide what counts as right and wrong.
      limit: number of pairs.
      policies_per_case: number of policies with a pair; those that make labels differ come first.
      notes: pair id -> a word about the edit.
    """
    cells: dict[tuple[str, str], dict[str, dict[str, dict[str, Prediction]]]] = {}
    for row in predictions:
        if row.judged and row.image_id in pictures and row.policy_id in policies:
            by_policy = cells.setdefault((row.pair_id, row.cluster), {})
            by_image = by_policy.setdefault(row.policy_id, {})
            by_image.setdefault(row.image_id, {})[row.variant] = row
    order = {image: place for place, image in enumerate(pictures)}
    cases, members = [], {}
    for (pair_id, name), by_policy in cells.items():
        seen = {image for by_image in by_policy.values() for image in by_image}
        images = sorted(seen, key=order.__getitem__)
        complete = {policy: by_image for policy, by_image in by_policy.items()
                    if all(set(variants) <= set(by_image.get(image, {})) for image in images)}
        if len(images) != (2 if pair_id else 1) or not complete:
            continue
        chosen = _most_telling(complete, images, variants[0], policies_per_case)
        members[name] = images
        cases.append(Case(
            pair_id=name, note=(notes or {}).get(name, ""), pictures=(),
            policies=tuple(PolicyRow(policy, *policies[policy], tuple(
                _cell(complete[policy][image], variants) for image in images))
                for policy in chosen)))
    # Stable sort: among equals the order of the predictions stays.
    cases.sort(key=lambda case: (not case.flips, -len(case.policies)))
    return [dataclasses.replace(case, pictures=tuple(map(pictures.__getitem__,
                                                          members[case.pair_id])))
            for case in _right_and_wrong(cases, limit)]


def _right_and_wrong(cases: Sequence[Case], limit: int) -> list[Case]:
    """The first cases, as many where the last variant errs as where it does not, if there are."""
    right = [all(cell.answers[-1].right for row in case.policies for cell in row.cells)
             for case in cases]
    num_right = min(sum(right), max(limit // 2, limit - right.count(False)))
    room = {True: num_right, False: limit - num_right}
    chosen = []
    for case, is_right in zip(cases, right, strict=True):
        if room[is_right] > 0:
            chosen.append(case)
            room[is_right] -= 1
    return chosen


def _most_telling(
    by_policy: Mapping[str, Mapping[str, Mapping[str, Prediction]]], images: Sequence[str],
    variant: str, limit: int,
) -> list[str]:
    """Up to `limit` policies whose patterns of labels over the two pictures differ most."""
    patterns = {policy: tuple(by_image[image][variant].label for image in images)
                for policy, by_image in by_policy.items()}
    chosen: list[str] = []
    while len(chosen) < min(limit, len(patterns)):
        shown = [patterns[policy] for policy in chosen]
        chosen.append(min(
            (policy for policy in patterns if policy not in chosen),
            key=lambda policy: (shown.count(patterns[policy]), len(set(patterns[policy])) == 1)))
    return chosen


def _cell(rows: Mapping[str, Prediction], variants: Sequence[str]) -> Cell:
    gold = rows[variants[0]]
    answers = tuple(Answer(
        variant=variant, outcome=rows[variant].outcome, rule_ids=rows[variant].cited_rules,
        rationale=parse_verdict(rows[variant].output).rationale,
        problem=rows[variant].problem, right=rows[variant].right) for variant in variants)
    return Cell(gold.label, gold.rule_ids, answers)
