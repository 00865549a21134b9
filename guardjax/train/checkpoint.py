"""Checkpoints: one atomic Orbax unit of state, data iterator and clock.

    workdir/checkpoints/<total step>/{state, data, meta}   the newest few, and the best
    workdir/params/<stage>                                 all parameters as that stage found them
    workdir/nonfinite/<total step>                         a state dumped by `guard.py`

Orbax writes `<step>.orbax-checkpoint-tmp` and renames it, so a step is there whole or not at all.
A save copies the arrays to the host and returns; files are written while the loop goes on.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax
from orbax.checkpoint import v1 as ocp

from guardjax.train import hosts
from guardjax.train.best import BestMetric, preservation, rank
from guardjax.train.config import CheckpointConfig
from guardjax.train.disk import DiskFullError, is_full_disk
from guardjax.train.identity import Identity, layout
from guardjax.train.position import one_position
from guardjax.train.save_under_way import SaveUnderWay, remove_written, unlogged
from guardjax.train.saved import (
    FORMAT,
    CheckpointError,
    Saved,
    abstract,
    check_belongs,
    is_whole,
    load_stage_start,
    read_saved,
)
from guardjax.train.state import Bundle, Clock, Params


def holds_state(workdir: pathlib.Path) -> bool:
    """Whether a run's folder has anything that its training left: a resume or a person needs it."""
    return any(any(folder.iterdir()) for name in ("checkpoints", "params", "nonfinite")
               if (folder := workdir / name).is_dir())


class Checkpointer:
    """Saves and restores bundles in a run's folder; use it as a context manager.

    One save is under way at a time: the next one, `wait` and the end of the `with` block wait for
    it, and raise what went wrong in it.
    """

    def __init__(self, workdir: str | os.PathLike[str], config: CheckpointConfig,
                 identity: Identity | None = None) -> None:
        """Checkpoints of another `identity` (see `identity.py`) are refused; None asks nothing."""
        self._workdir = pathlib.Path(workdir).absolute()
        self._steps = self._workdir / "checkpoints"
        self._config = config
        self._identity = identity or {}
        self._under_way: SaveUnderWay | None = None
        self.best_metric = BestMetric(config)
        self.incomplete = self._set_aside()
        """Names of steps that a crash or a broken copy left unfinished when this was opened."""
        self._orbax = self._open()

    def __enter__(self) -> Checkpointer:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        try:
            self.wait()
        except Exception as failure:
            if error is None:
                raise
            error.add_note(f"a save was under way, and failed: {failure}")
        finally:
            self._orbax.close()

    def due(self, clock: Clock) -> bool:
        """Whether the interval asks for a save now."""
        return clock.total % self._config.every_steps == 0

    @property
    def latest(self) -> int | None:
        """The newest complete step, or None."""
        pending = self._under_way.step if self._under_way else None
        return max((each.step for each in self._orbax.checkpoints if each.step != pending),
                   default=None)

    @property
    def best(self) -> tuple[int, float] | None:
        """(step, metric) of the best complete checkpoint by `checkpoint.best_metric`, or None."""
        pending = self._under_way.step if self._under_way else None
        found = [each for each in self._orbax.checkpoints if each.metrics and each.step != pending]
        best = max(found, key=lambda each: rank(each.metrics), default=None)
        return None if best is None else (best.step, best.metrics["value"])

    def save(self, bundle: Bundle, writer_state: Mapping[str, Any],
             time_state: Mapping[str, Any] | None = None) -> pathlib.Path:
        """Starts to save state, data iterator, clock and `extra` as one unit; returns its folder.

        Returns when the arrays are copied to the host, so that the state may be donated. A step
        that is already there is left alone.

        Raises:
          DiskFullError: with earlier checkpoints as they were; also of the save before.
        """
        self.wait()
        step = bundle.clock.total
        if step == self.latest:
            return self._steps / str(step)
        meta = {"format": FORMAT, "clock": dataclasses.asdict(bundle.clock),
                "writer": dict(writer_state), "extra": dict(bundle.extra),
                "identity": {**self._identity, "arrays": layout(bundle.state)},
                "time": dict(time_state or {})}
        items = {"state": bundle.state, "meta": meta}
        if bundle.data_iterator is not None:
            items["data"] = _stateful(bundle.data_iterator)
        metrics = self.best_metric.of_checkpoint(bundle.clock.stage)
        with self._explained(f"checkpoint of step {step}"):
            response = self._orbax.save_checkpointables_async(
                step, items, force=True, metrics=metrics)
        self._under_way = SaveUnderWay(step, response)
        return self._steps / str(step)

    def wait(self) -> None:
        """Returns when no save is under way.

        Raises:
          DiskFullError, or what else went wrong in the save that was.
        """
        save, self._under_way = self._under_way, None
        if save is not None:
            with save.quiet, self._explained(f"checkpoint of step {save.step}"):
                save.wait()

    def peek(self) -> Saved | None:
        """Returns what the newest complete checkpoint says of itself, or None if there is none.

        Raises:
          CheckpointError: if it was written in a format that this version does not read, or
            belongs to another model, tokenizer, config or list of stages.
        """
        if self.latest is None:
            return None
        return read_saved(self._steps / str(self.latest), self._identity)

    def restore(self, like: Bundle) -> Bundle:
        """Returns `like` with state, clock and `extra` of the newest complete checkpoint.

        `like` gives structure and shardings (another mesh than at the save is fine); its data
        iterator is set to the saved position in place. `frozen` and `ref_params` are kept.

        Raises:
          CheckpointError: if there is no checkpoint, or the state is of another shape.
        """
        self.wait()
        saved = self.peek()
        if saved is None:
            raise CheckpointError(f"no complete checkpoint in {self._steps}")
        check_belongs(self._steps / str(self.latest), saved.identity,
                      {"arrays": layout(like.state)})
        wanted: dict[str, Any] = {"state": jax.tree.map(abstract, like.state)}
        if like.data_iterator is not None:
            wanted["data"] = _stateful(like.data_iterator)
        found = self._orbax.load_checkpointables(self.latest, wanted)
        return like.replace(state=found["state"], clock=saved.clock, extra=saved.extra)

    def save_stage_start(self, bundle: Bundle) -> pathlib.Path:
        """Keeps all parameters as the coming stage (`clock.stage`) finds them.

        Saved once a stage, not at every step: frozen parameters and the reference follow from
        them.

        Raises:
          DiskFullError: with all checkpoints as they were.
        """
        self.wait()
        path = self._workdir / "params" / str(bundle.clock.stage)
        with self._explained(f"parameters for stage {bundle.clock.stage}"):
            ocp.save(path, bundle.frozen, overwrite=True)
        return path

    def load_stage_start(self, stage: int, like: Params) -> Params:
        """Returns what `save_stage_start` kept for the stage; see `saved.load_stage_start`."""
        return load_stage_start(self._workdir, stage, like)

    def dump(self, bundle: Bundle) -> pathlib.Path:
        """Saves the state aside, where no restart takes it up by itself; returns its folder."""
        self.wait()
        path = self._workdir / "nonfinite" / str(bundle.clock.total)
        with self._explained("dump of the state"):
            ocp.save(path, bundle.state, overwrite=True)
        return path

    def _open(self, clean: bool = True) -> ocp.training.Checkpointer:
        registry = ocp.handlers.local_registry()
        registry.add(ocp.handlers.JsonHandler, checkpointable_name="meta")
        context = ocp.Context()
        context.checkpointables.registry = registry
        return ocp.training.Checkpointer(
            self._steps, context=context, cleanup_tmp_directories=clean,
            preservation_policy=preservation(self._config))

    def _set_aside(self) -> list[str]:
        """Returns the names of unfinished steps, and makes sure that none counts as the newest.

        Orbax's rename makes a step atomic, and it removes its own temporary folders. A run's
        folder whose copying broke off can hold worse: that step is renamed, not removed.
        """
        found = []
        for path in sorted(self._steps.iterdir()) if self._steps.is_dir() else ():
            if is_whole(path):
                continue
            found.append(path.name)
            if path.name.isdigit() and hosts.is_first():
                path.rename(path.with_name(path.name + ".incomplete"))
        hosts.together(lambda: None)    # nobody opens the folder before it is in order
        return found

    @contextlib.contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        """Turns a full disk into a `DiskFullError`, and leaves no half-written files behind."""
        try:
            with unlogged():
                yield
        except Exception as error:
            # Orbax repeats a failure at every later call: start afresh. What it would clean up
            # is gone, and its thread for that may outlive the program's end.
            with contextlib.suppress(Exception), unlogged():
                self._orbax.close()
            for partial in self._workdir.glob("*/*.orbax-checkpoint-tmp*"):
                remove_written(partial)
            self._orbax = self._open(clean=False)
            if not is_full_disk(error):
                raise
            kept = "there is no checkpoint yet" if self.latest is None else (
                f"the checkpoint of step {self.latest} is intact")
            raise DiskFullError(
                f"the disk of {self._workdir} is full: could not write the {what}; {kept}. Free "
                "some space and start again: the run goes on from there.") from error


def _stateful(iterator: Any) -> Any:
    if not isinstance(iterator, ocp.handlers.StatefulCheckpointable):
        raise TypeError(f"data iterator {type(iterator).__name__} cannot be saved: it needs "
                        "`save` and `load` as grain's dataset iterators have")
    return one_position(iterator)
