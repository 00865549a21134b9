"""Trials of a sweep that train on a data set, measured on the split that their config names."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from guardjax.cli.dataset_answers import all_answers, open_answers
from guardjax.cli.dataset_run import open_report_dataset
from guardjax.cli.row_run import RowRun
from guardjax.cli.trials import Trial
from guardjax.eval.guard import Guard, weights_hash
from guardjax.eval.records import save_predictions
from guardjax.eval.tables import Column
from guardjax.train.config import ConfigError, DatasetConfig, RunConfig

MEASURED = "data"       # names the files of a trial's answers, whatever the split is called


def reported(trials: Sequence[Trial]) -> DatasetConfig | None:
    """The data set that all trials train on, and are measured on where `report` names a split; None
    where they train on the policy world.

    Raises:
      ConfigError: trials are measured on different data, which no table can compare.
    """
    found = {trial.place: trial.config.dataset for trial in trials}
    kinds = {place: (each.format, each.dir, each.policy, each.report)
             for place, each in found.items()}
    if len(set(kinds.values())) > 1:
        first, *others = kinds
        other = next(place for place in others if kinds[place] != kinds[first])
        raise ConfigError(f"sweep(add): {first} and {other} differ in dataset.format, dir, policy "
                          "or report: trials compare only on the same data")
    dataset = next(iter(found.values()))
    return dataset if dataset.format else None


def data_columns(dataset: DatasetConfig) -> list[Column]:
    """What the table of the sweep says of each trial; the first decides the order."""
    return [Column(title, dataset.report, metric) for title, metric in (
        ("F1", "f1"), ("Accuracy", "accuracy"), ("Macro-F1", "macro_f1"), ("PSS", "pss"),
        ("Invalid", "invalid_rate"))]


def measure_on_data(run: RowRun, config: RunConfig, model: Path, console: Console) -> None:
    """Asks a trial's model the rows of `dataset.report`, unless that is done; resumable.

    Raises:
      DatasetError: see `open_dataset`, or a picture cannot be opened.
      AnswersMismatch: stored answers are to other rows or pictures.
    """
    found = run.measured(MEASURED)
    reader, weights = open_report_dataset(config.dataset), weights_hash(model)
    wanted = {"model": weights, "questions": reader.digest_with_pictures}
    if found and wanted.items() <= found.items():
        return
    stored = open_answers(run.folder / "answers", reader, run.row, weights,
                          f"{config.dtype}, {config.attention}")
    rows = all_answers(stored, reader, lambda: Guard.load(
        model, dtype=config.dtype, attention=config.attention), run.out, console)
    save_predictions(run.predictions_file(MEASURED),
                     [dataclasses.replace(row, seed=run.seed) for row in rows])
    run.keep_measured(MEASURED, wanted | {"prompts": len(rows)})
