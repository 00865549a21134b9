"""Rows that any guard must beat: constant answers, and answers that look at half the question.

Each function turns the predictions of some run into those of a trivial model on the same
examples, so that the same metrics and the same bootstrap apply. They have no captions or
questions to answer, so those rows are left out.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable

from guardjax.eval.records import LABELS, Prediction


def always(predictions: Iterable[Prediction], label: str) -> list[Prediction]:
    """A model that says `label` to everything (`always_safe`, `always_unsafe`)."""
    if label not in LABELS:
        raise ValueError(f"a constant answer is one of {', '.join(LABELS)}, not {label!r}")
    return [_answer(row, f"always_{label}", label) for row in predictions if row.judged]


def policy_prior(predictions: Iterable[Prediction]) -> list[Prediction]:
    """The majority label of each policy: the best accuracy of a model blind to the picture.

    The majority is taken over the evaluated labels themselves, so this is a bound, not a model.
    """
    return _majority(predictions, "policy_prior", lambda row: row.policy_id)


def picture_prior(predictions: Iterable[Prediction]) -> list[Prediction]:
    """The majority label of each picture: the best accuracy of a model blind to the policy.

    It gives one answer to every policy, so its PSS is 0 by construction.
    """
    return _majority(predictions, "picture_prior", lambda row: row.image_id)


def _majority(
    predictions: Iterable[Prediction], variant: str, key: Callable[[Prediction], str]
) -> list[Prediction]:
    rows = [row for row in predictions if row.judged]
    counts: dict[str, Counter[str]] = {}
    for row in rows:
        counts.setdefault(key(row), Counter())[row.label] += 1
    # A tie is called unsafe: of two equally good guesses the careful one.
    best = {name: "unsafe" if count["unsafe"] >= count["safe"] else "safe"
            for name, count in counts.items()}
    return [_answer(row, variant, best[key(row)]) for row in rows]


def _answer(row: Prediction, variant: str, label: str) -> Prediction:
    return dataclasses.replace(row, model=variant, variant=variant, outcome=label, cited_rules=(),
                               output=f"<answer>{label}</answer>", problem=None)
