"""A checkpoint of a run as a model folder, as the run would have written it had it ended there."""

from __future__ import annotations

import pathlib

import jax

from guardjax.cli.compose import base_of, key_named
from guardjax.cli.model_folder import save_model
from guardjax.cli.training import start_of
from guardjax.models.config import ModelConfig
from guardjax.train.config import RunConfig, StageConfig, from_text
from guardjax.train.console import RunConsole
from guardjax.train.identity import identity_of
from guardjax.train.recipe import Recipe, make_recipe
from guardjax.train.saved import SavedSteps, load_stage_start
from guardjax.train.stages.sight import all_but_tower
from guardjax.train.workdir import CONFIG_FILE, WorkdirError, config_lines, fixed_lines, kept_base


def write_checkpoint(folder: pathlib.Path, which: str, target: pathlib.Path) -> int:
    """Writes the model of a checkpoint to `target`, with adapters merged; returns its step.

    Nothing is changed in the run's folder, in which training may go on.

    Args:
      folder: the run's.
      which: "best" by `checkpoint.best_metric`, "latest", or the number of a step.
      target: a folder that is not there.

    Raises:
      FileNotFoundError: `folder` holds no run.
      CheckpointError: there is no such checkpoint, or it is of another run.
      WorkdirError: the model that the run started from is not what it was.
      ConfigError: the run's config is none of this version, or its base is not there.
    """
    run, text = kept_run(folder)
    steps = SavedSteps(folder)
    step = steps.step(which)
    base, now = kept_base(folder), base_of(run)
    if base != now:
        raise WorkdirError(f"{folder} holds a run that started from the model {base}, and base="
                           f"{run.base!r} is {now} now; put the old model back: what a stage "
                           "freezes is read from it")
    start = start_of(run, None, RunConsole(enabled=False))
    cfg, batcher = start.model.cfg, start.model.batcher
    saved = steps.read(step, identity_of(
        cfg, batcher.tokenizer.digest, run.stages, fixed_lines(text)))
    found = load_stage_start(folder.absolute(), saved.clock.stage, start.take_bundle().frozen)
    recipe = _recipe(run.stages[saved.clock.stage], cfg)
    # Of what is trained, the tree alone is of use: its values are the checkpoint's.
    like, frozen = recipe.split(found, jax.random.key(0))
    save_model(cfg, recipe.whole(steps.trained(step, saved, like), frozen), batcher, target)
    return step


def kept_run(folder: pathlib.Path) -> tuple[RunConfig, str]:
    """The config of the run in a folder, and the text that it is kept as.

    Raises:
      FileNotFoundError: there is no run.
      ConfigError: it is of a version with other keys.
    """
    file = folder / CONFIG_FILE
    if not file.is_file():
        raise FileNotFoundError(f"{folder} is no run's folder: it has no {CONFIG_FILE}; give what "
                                "`guardjax train --out` was given")
    text = file.read_text("utf-8")
    with key_named(str(file)):
        return from_text(RunConfig, config_lines(text)), text


def _recipe(stage: StageConfig, cfg: ModelConfig) -> Recipe:
    freeze = all_but_tower(cfg) if stage.kind == "sight" else stage.freeze
    return make_recipe(freeze, stage.lora)
