"""What is read of a run's checkpoints; see `checkpoint.py` for how they are written.

Nothing here changes a folder, so that a run may still be writing into it.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
from orbax.checkpoint import v1 as ocp

from guardjax.models.linear import ordinary_shapes
from guardjax.train.best import rank
from guardjax.train.identity import Identity, difference, layout
from guardjax.train.state import Clock, Params

FORMAT = 3
LATEST, BEST = "latest", "best"


class CheckpointError(RuntimeError):
    """A checkpoint is missing, or does not fit what it is restored into."""


@dataclasses.dataclass(frozen=True)
class Saved:
    """What a checkpoint says of itself, readable before any array is."""

    clock: Clock
    writer: Mapping[str, Any]       # `MetricWriter.state()`
    extra: Mapping[str, Any]        # `Bundle.extra`
    identity: Identity              # what it belongs to, with the arrays of its state
    time: Mapping[str, Any]         # `TimeLedger.state()`


def read_saved(path: pathlib.Path, identity: Identity) -> Saved:
    """Returns what the checkpoint in `path` says of itself.

    Raises:
      CheckpointError: it was written in a format that this version does not read, or belongs to
        another model, tokenizer, config or list of stages than `identity`.
    """
    meta = json.loads((path / "meta" / "data.json").read_text("utf-8"))
    if meta.get("format") != FORMAT:
        raise CheckpointError(f"{path} has checkpoint format {meta.get('format')!r}; this version "
                              f"reads {FORMAT}")
    check_belongs(path, meta["identity"], identity)
    return Saved(clock=Clock(**meta["clock"]), writer=meta["writer"], extra=meta["extra"],
                 identity=meta["identity"], time=meta["time"])


def check_belongs(path: pathlib.Path, saved: Identity, now: Identity) -> None:
    """Checks that the checkpoint in `path`, which is `saved`'s, is `now`'s.

    Raises:
      CheckpointError: with what differs, line by line.
    """
    if found := difference(saved, now):
        raise CheckpointError(
            f"the checkpoint of step {path.name} in {path.parent} is of another run; choose "
            f"another folder, or mend what differs:\n{found}")


def is_whole(path: pathlib.Path) -> bool:
    """Whether a step's folder has all that a checkpoint has: a copy may have broken off."""
    return path.name.isdigit() and (path / "meta" / "data.json").is_file() and (
        path / "state").is_dir()


def load_stage_start(workdir: pathlib.Path, stage: int, like: Params) -> Params:
    """Returns all parameters as a stage found them, in the shardings of `like`.

    What is kept are ordinary weights, also where `like` has kernels in four bits. The first stage
    starts from the run's base, which is not kept: `like` is returned.

    Raises:
      CheckpointError: they are missing or of another shape.
    """
    if stage == 0:
        return like
    path = workdir / "params" / str(stage)
    if not path.is_dir():
        raise CheckpointError(f"{path} is missing: a checkpoint is of stage {stage}, which cannot "
                              "be resumed without the parameters it started from")
    try:
        return ocp.load(path, jax.tree.map(abstract, ordinary_shapes(like)))
    except ValueError as error:
        raise CheckpointError(f"{path} does not fit this model: {error}") from error


def abstract(leaf: Any) -> jax.ShapeDtypeStruct:
    """Shape, type and sharding of an array, as Orbax asks for what it loads."""
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=getattr(leaf, "sharding", None))


class SavedSteps:
    """The checkpoints in a run's folder, for reading."""

    def __init__(self, workdir: str | os.PathLike[str]) -> None:
        """
        Raises:
          CheckpointError: there is none.
        """
        self._steps = pathlib.Path(workdir).absolute() / "checkpoints"
        self._metrics: dict[int, Mapping[str, float]] = {}  # step -> what it is measured by, or {}
        if self._steps.is_dir():
            with ocp.training.Checkpointer(self._steps, cleanup_tmp_directories=False) as orbax:
                self._metrics = {each.step: each.metrics or {} for each in orbax.checkpoints
                                 if is_whole(self._steps / str(each.step))}
        if not self._metrics:
            raise CheckpointError(f"no complete checkpoint in {self._steps}")

    def step(self, which: str) -> int:
        """The step that "best", "latest" or its number names.

        Raises:
          CheckpointError: there is none such; names those that there are.
        """
        there = ", ".join(map(str, sorted(self._metrics)))
        measured = {step: metrics for step, metrics in self._metrics.items() if metrics}
        if which == LATEST:
            return max(self._metrics)
        if which == BEST:
            if not measured:
                raise CheckpointError(
                    f"no checkpoint in {self._steps} was measured: the best is that by "
                    "checkpoint.best_metric, which this run did not have or had no number of yet. "
                    f"Name a step: {there}")
            return max(measured, key=lambda step: rank(measured[step]))
        if not which.isdecimal() or int(which) not in self._metrics:
            raise CheckpointError(f"{self._steps} has no checkpoint {which!r}; there are "
                                  f"{BEST if measured else LATEST!r} and the steps {there}")
        return int(which)

    def read(self, step: int, identity: Identity) -> Saved:
        """What the step's checkpoint says of itself. Raises as `read_saved`."""
        return read_saved(self._steps / str(step), identity)

    def trained(self, step: int, saved: Saved, like: Params) -> Params:
        """The trained parameters of a step; nothing else of its state is read.

        `like` gives structure and shardings.

        Raises:
          CheckpointError: they are of another shape.
        """
        path = self._steps / str(step)
        arrays = [line for line in saved.identity["arrays"] if line.startswith("params/")]
        check_belongs(path, {"arrays": arrays}, {"arrays": layout({"params": like})})
        context = ocp.Context()
        context.pytree.loading.partial_load = True
        with context:
            found = ocp.load_checkpointables(
                path, {"state": {"params": jax.tree.map(abstract, like)}})
        return found["state"]["params"]
