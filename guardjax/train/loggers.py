"""Metrics beyond `metrics.jsonl`: TensorBoard and Weights & Biases, by config.

The TensorBoard files are written by tensorboardX, which needs NumPy and protobuf; clu's writers,
the usual choice with JAX, import the whole of TensorFlow or torch.
"""

from __future__ import annotations

import json
import math
import pathlib
import uuid
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any, Protocol

from guardjax.train.config import ConfigError, LogConfig
from guardjax.train.workdir import write_atomically

TENSORBOARD_FOLDER = "tensorboard"
WANDB_FILE = "wandb.json"       # the run's id, so that a resumed run is the same run there


class Logger(Protocol):
    """Takes every line of metrics."""

    def write(self, step: int, stage: str, values: Mapping[str, float]) -> None:
        """Values of a window of steps that ended with `step`; those not finite are left out."""
        ...

    def close(self) -> None:
        """Everything is written when it returns."""
        ...


def check_loggers(config: LogConfig) -> None:
    """That what the config asks for is installed.

    Raises:
      ConfigError: with the extra to install.
    """
    for key, asked, package, extra in (
            ("tensorboard", config.tensorboard, "tensorboardX", "tensorboard"),
            ("wandb_project", config.wandb_project, "wandb", "wandb")):
        if asked and find_spec(package) is None:
            raise ConfigError(f"log.{key}={asked!r} needs the package {package}: pip install "
                              f"'guardjax[{extra}]', or leave it out")


def open_loggers(config: LogConfig, folder: pathlib.Path, name: str,
                 settings: Mapping[str, Any]) -> list[Logger]:
    """The loggers that the config asks for; `settings` is the resolved config of the run."""
    loggers: list[Logger] = []
    if config.tensorboard:
        loggers.append(TensorBoardLogger(folder / TENSORBOARD_FOLDER))
    if config.wandb_project:
        loggers.append(WandbLogger(config.wandb_project, config.wandb_mode, folder, name, settings))
    return loggers


class TensorBoardLogger:
    """Scalars `<stage>/<name>` in event files; what a resumed run writes again replaces the old."""

    def __init__(self, folder: pathlib.Path) -> None:
        self._folder = folder
        self._writer: Any = None

    def write(self, step: int, stage: str, values: Mapping[str, float]) -> None:
        """See `Logger`."""
        if self._writer is None:
            from tensorboardX import SummaryWriter
            # Files are named after the second: two starts within one would share a file.
            start = len(list(self._folder.glob("events.*")))
            self._writer = SummaryWriter(
                str(self._folder), purge_step=step, filename_suffix=f".{start}")
        for name, value in _finite(values).items():
            self._writer.add_scalar(f"{stage}/{name}", value, step)
        self._writer.flush()

    def close(self) -> None:
        """See `Logger`."""
        if self._writer is not None:
            self._writer.close()


class WandbLogger:
    """A run of a Weights & Biases project; a resumed run goes on in the same one.

    `step` is a metric of its own: W&B drops values whose step it has seen, and a resumed run does
    some steps again.
    """

    def __init__(self, project: str, mode: str, folder: pathlib.Path, name: str,
                 settings: Mapping[str, Any]) -> None:
        import wandb
        kept = folder / WANDB_FILE
        if not kept.is_file():
            write_atomically(kept, json.dumps({"id": uuid.uuid4().hex[:16]}) + "\n")
        run_id = json.loads(kept.read_text("utf-8"))["id"]
        self._run = wandb.init(project=project, name=name, id=run_id,
                               resume="allow", mode=mode, dir=str(folder), config=dict(settings))
        self._run.define_metric("*", step_metric="step")

    def write(self, step: int, stage: str, values: Mapping[str, float]) -> None:
        """See `Logger`."""
        self._run.log({"step": step} | {
            f"{stage}/{name}": value for name, value in _finite(values).items()})

    def close(self) -> None:
        """See `Logger`."""
        self._run.finish()


def _finite(values: Mapping[str, float]) -> dict[str, float]:
    return {name: float(value) for name, value in values.items() if math.isfinite(value)}
