"""A run from its config to a model folder: parts put together, the loop, what it leaves."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.sharding import Mesh

import guardjax.models as models
from guardjax.cli.compose import (
    claim_of,
    key_named,
    load_start,
    make_stage,
    model_config,
    world_directory,
)
from guardjax.cli.model_folder import holds_model, save_model
from guardjax.cli.reward_files import changed_files, keep_reward_files
from guardjax.cli.run_adapters import adapter_writer
from guardjax.cli.run_facts import run_facts
from guardjax.cli.run_lengths import with_lengths
from guardjax.cli.step_work import make_meter
from guardjax.data.batching import Batcher
from guardjax.models.config import ModelConfig
from guardjax.rl.model_fns import bind
from guardjax.train import hosts
from guardjax.train.agreement import check_agreement, check_shared
from guardjax.train.batch_fit import check_stage_batch
from guardjax.train.checkpoint import Checkpointer, holds_state
from guardjax.train.compilation import compilation_line, enable_compile_cache
from guardjax.train.config import ConfigError, RunConfig
from guardjax.train.console import RunConsole
from guardjax.train.guard import NonFiniteGuard
from guardjax.train.identity import identity_of
from guardjax.train.loggers import check_loggers, open_loggers
from guardjax.train.loop import run_stages
from guardjax.train.metrics import MetricWriter
from guardjax.train.monitor import make_monitor
from guardjax.train.phases import TimeLedger
from guardjax.train.recipe import four_bit_modules
from guardjax.train.sharding import Placement, check_heads, check_pairs, make_mesh
from guardjax.train.stages.model import StageModel
from guardjax.train.state import Bundle
from guardjax.train.workdir import (
    Claim,
    check_workdir,
    claim_workdir,
    fixed_lines,
    release_workdir,
)


def train(run: RunConfig, workdir: str | pathlib.Path, console: RunConsole,
          profile: tuple[int, int] | None = None) -> pathlib.Path:
    """Runs all stages (or goes on where they stopped) and returns the trained model's directory.

    A run whose model is there is finished: it is not trained again. The folder is claimed last of
    all, and released by a run that fails before its first checkpoint, so that the corrected config
    is not refused for the wrong one. `profile` are the first and last step to be traced, if any.

    Raises:
      WorkdirError: the folder holds a run of another config or from another starting model.
      ConfigError: a value that does not fit the world, the base model or a stage.
      EngineError: an engine is not there, or not one for this model.
      DiskFullError, NonFiniteError, Preempted and others of `run_stages`: with the state kept.
    """
    ledger = TimeLedger()
    check_loggers(run.log)
    claim = hosts.together(lambda: claim_of(run))
    check_agreement(run_facts(run, claim))
    _check_alone(run)
    with key_named("mesh"):
        placement = _placement(run)
    enable_compile_cache()
    folder = hosts.together(lambda: check_workdir(workdir, claim))
    changed = changed_files(run, folder)
    if holds_model(folder / "model"):
        console.line(f"{run.name}: trained already; nothing to do" + (
            f". {', '.join(changed)} has changed since: choose another folder to train with it"
            if changed else ""))
        return folder / "model"
    start = start_of(run, placement, console)
    stages = _stages(run, start.model, folder)
    for name in changed:
        console.line(f"{name} has changed since the last start: the rest is rewarded by it as it "
                     "is now")
    cfg, batcher = start.model.cfg, start.model.batcher
    meter = make_meter(run, cfg, 1 if placement is None else placement.mesh.size)
    identity = identity_of(
        cfg, batcher.tokenizer.digest, run.stages, fixed_lines(claim.config_text))
    with (_claimed(folder, claim), Checkpointer(folder, run.checkpoint, identity) as checkpointer,
          contextlib.closing(_open_writer(run, folder)) as writer, _on_mesh(placement)):
        hosts.first_only(lambda: keep_reward_files(run, folder))
        bundle = run_stages(
            stages, start.take_bundle(), checkpointer=checkpointer, writer=writer,
            console=console, guard=NonFiniteGuard(run.guard.max_bad_steps, checkpointer.dump),
            log=run.log,
            monitor=make_monitor(ledger, meter, run.guard, folder, console.line, profile))
        checkpointer.wait()
        if checkpointer.best:
            console.line("best checkpoint: step {}, {} {:.6g}".format(
                checkpointer.best[0], run.checkpoint.best_metric, checkpointer.best[1]))
    console.line(f"{run.name}: {ledger.summary()}")
    _tell_compilations(run, stages, batcher, console)
    _by_first(lambda params: save_model(cfg, params, batcher, folder / "model"))(bundle.params)
    return folder / "model"


@dataclasses.dataclass
class Start:
    """What the stages begin with; the bundle is taken out, so that no second name keeps it."""

    model: StageModel
    bundle: Bundle | None

    def take_bundle(self) -> Bundle:
        bundle, self.bundle = self.bundle, None
        return bundle


def start_of(run: RunConfig, placement: Placement | None, console: RunConsole) -> Start:
    """The starting model as the run compiles it, its parameters where they will live.

    Raises:
      ConfigError: a value that does not fit the model or the mesh.
    """
    with key_named("stages.0"):         # what that stage does not train is read as it keeps it
        four_bits = four_bit_modules(run.stages[0].lora) if run.stages else None
    if four_bits is not None and placement is not None:
        raise ConfigError(f"stages.0.lora.base='nf4' is for one device, and mesh.rules="
                          f"{run.mesh.rules!r} spreads the base: set one of them to its default")
    if placement is not None:
        _check_mesh(run, model_config(run), placement.mesh)
    with key_named("base"):
        cfg, params, batcher = load_start(run.base, run.seed, run.memory, four_bits, placement)
    cfg = dataclasses.replace(cfg, dtype=run.dtype, attention=run.attention)
    if batcher.template != run.template:
        console.line(f"{run.name}: the base was trained with template {batcher.template}, this run "
                     f"trains it with {run.template}")
        batcher = dataclasses.replace(batcher, template=run.template)
    may_write, batcher = batcher.answer_limit, with_lengths(batcher, run, cfg)
    if batcher.answer_limit < may_write:
        console.line(f"{run.name}: the base may write {may_write} tokens, this run's guard "
                     f"{batcher.answer_limit}, as lengths.answer says")
    try:
        models.attention_backend(cfg)
    except ValueError as error:     # it names the key itself
        raise ConfigError(str(error)) from error
    return Start(StageModel(cfg, bind(models, cfg), batcher, placement), Bundle(frozen=params))


def _stages(run: RunConfig, model: StageModel, folder: pathlib.Path) -> list[Any]:
    with key_named("world"):
        directory = hosts.together(lambda: world_directory(run))
    check_agreement({"world": directory.name})
    stages = []
    for index, config in enumerate(run.stages):
        with key_named(f"stages.{index}"):
            stages.append(make_stage(config, model, directory, run.seed, run.dataset, folder))
        stages[-1].keep_adapters = _by_first(
            adapter_writer(config, model.cfg, "" if index else run.base, folder))
    return stages


def _tell_compilations(run: RunConfig, stages: list[Any], batcher: Batcher,
                       console: RunConsole) -> None:
    jits = [jit for stage in stages for jit in stage.jits]
    if jits:
        shapes = 2 * len(batcher.prompt_buckets) * len(batcher.answer_buckets)
        console.line(f"{run.name}: {compilation_line(jits, shapes * len(jits))}")


def _open_writer(run: RunConfig, folder: pathlib.Path) -> MetricWriter:
    """Logs of the first process; the others write none."""
    if not hosts.is_first():
        return MetricWriter(folder, enabled=False)
    return MetricWriter(folder, loggers=open_loggers(
        run.log, folder, run.name, dataclasses.asdict(run)))


def _check_alone(run: RunConfig) -> None:
    """Refuses, over several processes, what one process does by itself.

    Raises:
      ConfigError: naming the key.
    """
    number = hosts.num_processes()
    if number == 1:
        return
    for index, stage in enumerate(run.stages):
        reasons = {}
        if stage.feature_cache:
            reasons["feature_cache"] = (
                "each process would encode the pictures that its own disk lacks, and a tower that "
                "lies on the mesh runs for all processes or for none")
        if stage.rl.engine != "local":
            reasons["rl.engine"] = (
                "an engine is handed whole weights by one process, and here each has a part")
        for key, reason in reasons.items():
            raise ConfigError(f"stages.{index}.{key}: not over {number} processes: {reason}. Use "
                              "one process with all devices, or leave it out")


def _placement(run: RunConfig) -> Placement | None:
    """Where the run's arrays live; None for one device, where nothing need be said."""
    mesh = make_mesh(run.mesh)
    return None if run.mesh.rules == "single" else Placement(mesh, run.mesh.rules)


def _check_mesh(run: RunConfig, cfg: ModelConfig, mesh: Mesh) -> None:
    """That the mesh divides the model's heads, and every batch that goes through a program."""
    with key_named("mesh"):
        check_heads(cfg.text.num_key_value_heads, mesh)
    for index, stage in enumerate(run.stages):
        with key_named(f"stages.{index}.batch"):
            check_stage_batch(stage, cfg.text.num_key_value_heads, mesh)
            if stage.kind in ("grpo", "exact"):
                check_pairs(stage.batch, mesh)


def _on_mesh(placement: Placement | None) -> contextlib.AbstractContextManager[Any]:
    return contextlib.nullcontext() if placement is None else jax.set_mesh(placement.mesh)


@contextlib.contextmanager
def _claimed(folder: pathlib.Path, claim: Claim) -> Iterator[None]:
    """The folder is the run's; nobody's again if the block fails with nothing kept."""
    hosts.first_only(lambda: claim_workdir(folder, claim))
    hosts.together(lambda: check_shared(folder))
    try:
        yield
    except BaseException:
        if hosts.is_first() and not holds_state(folder):
            release_workdir(folder)
        raise


def _by_first(write: Callable[[Any], Any]) -> Callable[[Any], None]:
    """What all processes call with a tree of arrays, and process 0 writes; all go on after it."""
    def write_whole(tree: Any) -> None:
        whole = hosts.fetch_on_first(tree)
        hosts.first_only(lambda: write(whole))

    return write_whole
