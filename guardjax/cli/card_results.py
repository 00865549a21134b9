"""The numbers for a model card: those of an evaluation of exactly these weights."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence

from guardjax.eval.metrics import METRICS
from guardjax.eval.records import LABELS, load_predictions
from guardjax.eval.tables import compact, load_results, percent

_SHOWN = ("f1", "accuracy", "balanced_accuracy", "macro_f1", "pss", "per", "pes", "pair_accuracy",
          "invalid_rate", "retention")
_FILES = ("predictions.jsonl", "results.json")


class CardResultsError(ValueError):
    """Results that are not those of the model on the card."""


@dataclasses.dataclass(frozen=True)
class CardResults:
    """What a card says of an evaluation.

    Attributes:
      data: what it was measured on, for people.
      lines: (split, metric, value with interval in per cent, the values of always saying safe and
        always saying unsafe, units).
    """

    data: str
    lines: Sequence[tuple[str, str, str, str, str]]


def card_results(folder: pathlib.Path, model_hash: str) -> CardResults:
    """The results of the model with that hash in a folder of `guardjax eval` or of a run.

    Raises:
      CardResultsError: there are none, or they are of other weights; names both hashes.
    """
    for name in _FILES:
        if not (folder / name).is_file():
            raise CardResultsError(f"{folder} has no {name}: give a folder of guardjax eval")
    predictions = load_predictions(folder / "predictions.jsonl")
    mine = [row for row in predictions if row.model == model_hash]
    if not mine:
        there = ", ".join(sorted({f"{row.variant} {row.model}" for row in predictions}))
        raise CardResultsError(f"{folder} has no answers of model {model_hash}; it has those of "
                               f"{there}. Evaluate this model, or give another folder")
    variant = mine[0].variant
    results = [row for row in load_results(folder / "results.json") if row.seed is None]
    constant = {(row.variant, row.split, row.metric): percent(row.value, 1) for row in results}
    lines = [(row.split, METRICS[row.metric].title, compact(row, 1),
              " / ".join(constant.get((f"always_{label}", row.split, row.metric), "–")
                         for label in LABELS), f"{row.n:,}")
             for row in results
             if row.variant == variant and row.metric in _SHOWN
             and "/" not in row.split]
    if not lines:
        raise CardResultsError(f"{folder}/results.json has no number of {variant!r}: run guardjax "
                               "eval again")
    data = sorted({_data_of(row.example_id, row.split) for row in mine if row.judged})
    return CardResults(", ".join(data), lines)


def run_results(model: pathlib.Path, model_hash: str) -> CardResults | None:
    """The results that lie beside a run's folder `model`; None where it has none of this model."""
    folder = model.parent
    if model.name != "model" or not all((folder / name).is_file() for name in _FILES):
        return None
    try:
        return card_results(folder, model_hash)
    except CardResultsError:
        return None


def _data_of(example_id: str, split: str) -> str:
    """A data set's name from its ids (DATASET/SPLIT/ROW); those of the world begin otherwise."""
    dataset, _, rest = example_id.partition("/")
    if rest.startswith(f"{split}/"):
        return dataset
    return "the policy world (drawn scenes: toy numbers)"
