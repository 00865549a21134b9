"""A model's directory as Hugging Face lays it out: written whole or not at all."""

from __future__ import annotations

import os
import pathlib
import shutil
from typing import Any

import guardjax.models as models
from guardjax.data.batching import Batcher, save_batcher
from guardjax.data.processor import PROCESSOR_FILE
from guardjax.models.config import ModelConfig
from guardjax.models.hf_weights import CONFIG_FILE, INDEX_FILE, SINGLE_FILE
from guardjax.train.disk import DiskFullError, is_full_disk

_REQUIRED = (CONFIG_FILE, "tokenizer.json", PROCESSOR_FILE)


def holds_model(path: pathlib.Path) -> bool:
    """Whether the directory has all that a guard is loaded from."""
    weights = any((path / name).is_file() for name in (SINGLE_FILE, INDEX_FILE))
    return weights and all((path / name).is_file() for name in _REQUIRED)


def save_model(cfg: ModelConfig, params: Any, batcher: Batcher, path: pathlib.Path) -> pathlib.Path:
    """Writes weights, config, tokenizer and processor; returns `path`.

    They are written to `<path>.partial`, which takes the place of `path` when it is complete: a
    process that dies on the way leaves no directory that looks like a model. A directory that is
    there and holds no whole model is kept as `<path>.incomplete`.

    Raises:
      FileExistsError: `path` holds a whole model already; it is never overwritten.
      WeightsError: `params` is not the tree of `cfg`.
      DiskFullError: with what was at `path` as it was.
    """
    if holds_model(path):
        raise FileExistsError(f"{path} holds a model already; remove it or choose another folder")
    # Everything temporary, also that of `save_hf`, lies in this one: the next start removes it.
    workshop = path.with_name(path.name + ".partial")
    shutil.rmtree(workshop, ignore_errors=True)
    try:
        models.save_hf(params, cfg, workshop / path.name)
        save_batcher(batcher, workshop / path.name)
        for file in (workshop / path.name).iterdir():
            _flush(file)
    except Exception as error:
        shutil.rmtree(workshop, ignore_errors=True)
        if not is_full_disk(error):
            raise
        raise DiskFullError(
            f"the disk is full: could not write the model to {path}. Free some space and start "
            "again: the run goes on from its newest checkpoint.") from error
    if path.exists():
        aside = path.with_name(path.name + ".incomplete")
        shutil.rmtree(aside, ignore_errors=True)
        path.rename(aside)
    (workshop / path.name).rename(path)
    workshop.rmdir()
    return path


def _flush(file: pathlib.Path) -> None:
    """Waits until the file is on the disk, so that the rename cannot come before its content."""
    with open(file, "rb") as opened:
        os.fsync(opened.fileno())
