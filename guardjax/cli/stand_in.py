"""What stands in for a published table: the same rows and columns on the policy world."""

from __future__ import annotations

import hashlib
import pathlib
from collections.abc import Mapping, Sequence

from guardjax.cache_dir import cache_dir
from guardjax.cli import measure, rows
from guardjax.cli.row_run import found_runs
from guardjax.eval.baselines import always
from guardjax.eval.bootstrap import Interval, interval
from guardjax.eval.cells import tabulate_runs
from guardjax.eval.matrix import by_level
from guardjax.eval.metrics import METRICS
from guardjax.eval.paper_tables import PaperTable
from guardjax.eval.protocol import Outputs, Protocol, for_constant, number
from guardjax.eval.records import LABELS, Prediction, load_predictions
from guardjax.eval.tables import load_results
from guardjax.train.config import to_text

SPLIT = "test"
# Name in a table -> variant of the guards that any other has to beat.
CONSTANT = {f"always {label}": f"always_{label}" for label in LABELS}
# Where a trap confuses the model of both stages with that of the second alone; and, so that it can
# be shown on a guard that breaks the grammar, a model of the first stage with one of the second.
OTHER_STAGE = {"describe_grpo_varied": "grpo_varied", "sft_l3": "grpo_l3"}


class StandInError(ValueError):
    """The runs or results that a stand-in is made of are not there."""


def from_results(table: PaperTable, path: pathlib.Path) -> dict[str, tuple[Interval | None, ...]]:
    """Model -> a number a column, from results that are checked in, under the strict protocol.

    The constant guards come first.

    Raises:
      StandInError: the file is not there.
    """
    if not path.is_file():
        raise StandInError(f"{path} is not there: run from a checkout of the repository, or give "
                           "the folder of an experiment with --runs")
    found = {(row.variant, row.split, row.metric): Interval(row.value, row.low, row.high, row.n)
             for row in load_results(path) if row.seed is None}
    return {model: tuple(found.get((variant, column.split, column.metric))
                         for column in table.stand_in_columns)
            for model, variant in {**CONSTANT, **table.stand_in}.items()}


def from_answers(table: PaperTable, stored: Mapping[str, Sequence[Prediction]],
                 protocol: Protocol) -> dict[str, tuple[Interval | None, ...]]:
    """Model -> a number a column, from stored answers; None where a variant has none.

    The constant guards come first. What no verdict decides (retention) is as it is under every
    protocol.
    """
    category_of = categories()
    stored = {**_constant(stored), **stored}
    return {model: tuple(
        _cell(outputs_of(stored, variant, column.split, category_of), column.metric,
              for_constant(protocol) if model in CONSTANT else protocol)
        for column in table.stand_in_columns)
        for model, variant in {**CONSTANT, **table.stand_in}.items()}


def _constant(stored: Mapping[str, Sequence[Prediction]]) -> dict[str, list[Prediction]]:
    """The constant guards' answers to what one seed of a variant was asked."""
    first = next(iter(stored.values()))
    asked = [row for row in first if row.seed == first[0].seed]
    return {variant: always(asked, label)
            for variant, label in zip(CONSTANT.values(), LABELS, strict=True)}


def row_configs(table: PaperTable) -> dict[str, str]:
    """Variant that is trained -> 16 hex digits of its row's config, resolved with seed 0.

    Empty where the configs are not there, as outside of a checkout.
    """
    if not pathlib.Path(rows.CONFIGS).is_dir():
        return {}
    trained = dict.fromkeys(row for row in table.stand_in.values() if row != rows.BASE)
    return {row: hashlib.sha256(to_text(rows.load_row(row, 0)).encode()).hexdigest()[:16]
            for row in trained}


def outputs_of(stored: Mapping[str, Sequence[Prediction]], variant: str, split: str,
               category_of: Mapping[str, str]) -> Outputs:
    """A variant's answers on a split; `OTHER_STAGE` says what a trap would put in their place."""
    mine, other = ([row for row in stored.get(name, ()) if row.split == split]
                   for name in (variant, OTHER_STAGE.get(variant, variant)))
    return Outputs(mine, other, category_of)


def stored_answers(runs: pathlib.Path) -> dict[str, list[Prediction]]:
    """Variant -> its answers on the split test, all seeds, with a split of its own for each level.

    Raises:
      StandInError: there are none.
    """
    stored: dict[str, list[Prediction]] = {}
    for run in found_runs(runs):
        if run.measured(SPLIT):
            found = load_predictions(run.predictions_file(SPLIT))
            stored.setdefault(run.row, []).extend([*found, *by_level(found)])
    if not stored:
        raise StandInError(f"{runs} has no answers on the split {SPLIT}: make them with guardjax "
                           f"experiment --out {runs}")
    return stored


def categories() -> Mapping[str, str]:
    """Picture of the split test -> its first harmful category by name; none if it is harmless."""
    world = measure.evaluation_world(cache_dir(), measure.FULL, SPLIT)
    return measure.harm_of(measure.test_records(world, SPLIT, measure.FULL.policies))


def _cell(outputs: Outputs, metric: str, protocol: Protocol) -> Interval | None:
    if not outputs.both_stages:
        return None
    if metric == "retention":
        return interval(METRICS[metric], tabulate_runs(outputs.both_stages))
    return number(outputs, protocol, metric)
