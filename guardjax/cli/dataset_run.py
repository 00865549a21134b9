"""A run over annotated pictures: its reader, and the batches of its stages."""

from __future__ import annotations

import dataclasses

from guardjax.data.batching import Batcher
from guardjax.data.datasets.batches import RecordBatches, RecordMix
from guardjax.data.datasets.reader import DatasetReader
from guardjax.data.datasets.registry import open_dataset
from guardjax.policies import load_policy
from guardjax.train.config import DatasetConfig, StageConfig


def open_run_dataset(dataset: DatasetConfig) -> DatasetReader:
    """The reader of what a run trains on.

    Raises:
      DatasetError, PolicyError: see `open_dataset` and `load_policy`.
    """
    return open_dataset(dataset.format, dataset.dir, dataset.split,
                        policy=load_policy(dataset.policy) if dataset.policy else None,
                        missing=dataset.missing)


def open_report_dataset(dataset: DatasetConfig) -> DatasetReader:
    """The reader of what its model is measured on. Raises as `open_run_dataset`."""
    return open_run_dataset(dataclasses.replace(dataset, split=dataset.report))


def record_batches(
    stage: StageConfig, dataset: DatasetConfig, batcher: Batcher, num_batches: int, seed: int,
    rows: slice = slice(None),
) -> RecordBatches:
    """The batches of one stage. Raises `DatasetError` and `PromptError`; see `RecordBatches`."""
    return RecordBatches(
        open_run_dataset(dataset), batcher, batch=stage.batch, num_batches=num_batches, seed=seed,
        mix=RecordMix(dataset.flips, dataset.exceptions), teach=stage.kind == "sft",
        think=stage.think, rows=rows)
