"""A row with one seed, of the experiment or a sweep: trained and measured once, both resumable."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import pathlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console

from guardjax.atomic import write_text
from guardjax.cli import compose, rows, training
from guardjax.cli.cost import cost_of, load_cost, save_cost, timed
from guardjax.cli.world_answers import ask_world, open_answers, own_file, pins_of
from guardjax.eval.guard import Guard, weights_hash
from guardjax.eval.harness import Question, digest
from guardjax.eval.records import save_predictions
from guardjax.train.config import RunConfig
from guardjax.train.console import RunConsole
from guardjax.train.workdir import WorkdirError, check_workdir, kept_base


@dataclasses.dataclass(frozen=True)
class RowRun:
    """A row with a seed, and the folder of the experiment or the sweep."""

    out: pathlib.Path
    row: str
    seed: int

    @property
    def folder(self) -> pathlib.Path:
        """Where everything of this run lies."""
        return self.out / self.row / f"seed{self.seed}"

    def predictions_file(self, split: str) -> pathlib.Path:
        """The answers on a split; those on test bear the plain name."""
        return self.folder / f"predictions{'' if split == 'test' else f'_{split}'}.jsonl"

    def _measured_file(self, split: str) -> pathlib.Path:
        return self.folder / f"measured_{split}.json"

    def measured(self, split: str) -> dict | None:
        """What was measured on a split: model, digest of the questions, prompts, and seconds of the
        attempt that ended."""
        path = self._measured_file(split)
        if not path.is_file() or not self.predictions_file(split).is_file():
            return None
        return json.loads(path.read_text(encoding="utf-8"))

    def keep_measured(self, split: str, found: Mapping[str, Any]) -> None:
        """Writes down what `measured` gives, after its answers are written."""
        write_text(self._measured_file(split), json.dumps(found) + "\n")


@contextlib.contextmanager
def alone(run: RowRun) -> Iterator[bool]:
    """Whether no other process is at this row and seed; none can begin until the block ends."""
    run.folder.mkdir(parents=True, exist_ok=True)
    with open(run.folder / ".lock", "w", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def train_row(
    run: RowRun, overrides: Sequence[str] = (), configs: str = rows.CONFIGS, *,
    console: RunConsole | None = None,
) -> pathlib.Path:
    """Trains a row, or goes on where it stopped, or finds it finished; returns the model.

    The base is not trained: it is the model that the rows start from.

    Raises:
      ConfigError: no such row, or a wrong override.
      WorkdirError: the folder holds a run of another config or from another base, or another row
        of the experiment does: rows compare only where they start from one model.
    """
    if run.row == rows.BASE:
        # Every row starts from the same base, so any of them names it.
        return compose.model_dir(rows.load_row("sft_l3", 0, overrides, configs).base)
    config = rows.load_row(run.row, run.seed, overrides, configs)
    claim = compose.claim_of(config)
    check_workdir(run.folder, claim)
    _check_one_base(run, claim.base)
    return train_config(run, config, console=console)


def train_config(
    run: RowRun, config: RunConfig, *, console: RunConsole | None = None
) -> pathlib.Path:
    """Trains a config in the run's folder, or goes on, or finds it finished; returns the model.

    Raises:
      ConfigError: a value that only shows when the run is put together.
      WorkdirError: the folder holds a run of another config or from another base.
    """
    check_workdir(run.folder, compose.claim_of(config))
    model = run.folder / "model"
    if load_cost(run.folder) and model.is_dir():
        return model
    with timed(run.folder):
        model = training.train(config, run.folder, console or RunConsole(config.log.every_steps))
    save_cost(run.folder, cost_of(config, run.folder))
    return model


def measure_row(
    run: RowRun, model: pathlib.Path, questions: Sequence[Question], split: str,
    world: pathlib.Path, console: Console | None = None,
) -> dict:
    """Asks the model, unless it was asked just these questions before; returns `measured`.

    Answers are kept as they come, so that a measuring that was stopped goes on, and are put
    together at the end. A look at test is written to `looks.jsonl` before it is taken.

    Args:
      run: the row and seed.
      model: its folder.
      questions, split: what is asked, and what it is a look at.
      world: the build that the questions are about.
      console: where progress is told, if anywhere.
    """
    found, model_hash = run.measured(split), weights_hash(model)
    wanted = {"model": model_hash, "questions": digest(questions)}
    if found and wanted.items() <= found.items():
        return found
    pins = pins_of(world, split, questions, run.row, model_hash, seed=run.seed)
    stored = open_answers(own_file(run.folder, pins), pins, questions)
    started = time.monotonic()
    save_predictions(run.predictions_file(split), ask_world(
        stored, lambda: Guard.load(model), questions, run.out, console or Console(quiet=True),
        run.seed))
    found = wanted | {"prompts": len(questions),
                      "seconds": round(time.monotonic() - started, 1)}
    run.keep_measured(split, found)
    stored.path.unlink()
    return found


def found_runs(out: pathlib.Path) -> list[RowRun]:
    """All rows and seeds that have a folder, in the order of the experiment."""
    order = {row: place for place, row in enumerate(rows.GROUPS["all"])}
    runs = [RowRun(out, folder.parent.name, int(folder.name.removeprefix("seed")))
            for folder in out.glob("*/seed*") if folder.name.removeprefix("seed").isdecimal()]
    return sorted(runs, key=lambda run: (order.get(run.row, len(order)), run.row, run.seed))


def _check_one_base(run: RowRun, base: str) -> None:
    for other in found_runs(run.out):
        found = kept_base(other.folder)
        if found not in (None, base):
            raise WorkdirError(
                f"{other.folder} holds a run that started from the model {found}, and {run.row} "
                f"would start from {base}: rows compare only where they start from one model. "
                "Choose another folder for the experiment, or remove the rows of the other model")
