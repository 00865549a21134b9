"""The parts of a run, each made from its config: starting model, world, stages."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import importlib.util
import pathlib
import tempfile
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax

import guardjax.models as models
from guardjax.cache_dir import cache_dir
from guardjax.cli.assets import model_dir
from guardjax.cli.dataset_run import open_report_dataset, open_run_dataset, record_batches
from guardjax.cli.engines import connect_engine
from guardjax.cli.run_adapters import check_adapters
from guardjax.cli.world_policies import is_policy_file, named_policy
from guardjax.data.batching import Batcher, load_batcher
from guardjax.data.corpus import world_corpus
from guardjax.data.images import PatchSpec
from guardjax.data.matched_pairs import MatchedPairs
from guardjax.data.sight import SightSource
from guardjax.data.sources import BatchSource, one_policy, varied_policies
from guardjax.data.tokenizer import train_tokenizer
from guardjax.eval.guard import weights_hash
from guardjax.models.config import ModelConfig
from guardjax.models.hf_weights import CONFIG_FILE, read_config
from guardjax.models.init import param_shapes
from guardjax.models.releases import RELEASES, release_of
from guardjax.models.tiny import tiny_config
from guardjax.policies import PolicySplits, make_splits
from guardjax.train.config import (
    ConfigError,
    DatasetConfig,
    MemoryConfig,
    RunConfig,
    StageConfig,
    resolve,
    to_text,
)
from guardjax.train.sharding import Placement, on_one_device
from guardjax.train.stages.bp_adapt import BPAdaptStage
from guardjax.train.stages.exact import ExactStage
from guardjax.train.stages.grpo import GRPOStage
from guardjax.train.stages.model import StageModel
from guardjax.train.stages.sft import SFTStage
from guardjax.train.stages.sight import SightStage
from guardjax.train.workdir import DATASET_ROWS, POLICY_FILE, Claim
from guardjax.world import builder, catalogue

SCRATCH = "scratch"             # RunConfig.base: random weights and a tokenizer of our own
_PATCHES = PatchSpec(patch_size=8, min_pixels=64 * 64, max_pixels=64 * 64)
_STAGES = {"sft": SFTStage, "bp_adapt": BPAdaptStage, "grpo": GRPOStage, "exact": ExactStage}


def load_config(path: str, overrides: Sequence[str] = ()) -> RunConfig:
    """The resolved run of a config file (`get_config()`), after the command line's overrides.

    Raises:
      ConfigError: the file is missing or has no `get_config`, or a key or value is wrong.
    """
    return resolve(config_module(path).get_config(), overrides)


def config_module(path: str) -> types.ModuleType:
    """A config file, run: `get_config()`, and `sweep(add)` if it has one (see `trials.py`).

    Raises:
      ConfigError: the file is missing or has no `get_config`.
    """
    file = pathlib.Path(path)
    if not file.is_file():
        raise ConfigError(f"config file {path} does not exist; try configs/safeguard_vl/base.py")
    spec = importlib.util.spec_from_file_location("guardjax_config", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, "get_config"):
        raise ConfigError(f"{path} does not define get_config()")
    return module


def claim_of(run: RunConfig) -> Claim:
    """What the folder of a run belongs to: its config, and the weights that it starts from.

    Raises:
      ConfigError: there is no model at `run.base`, or a policy's file is wrong.
    """
    text = to_text(run) + "".join(
        f"{POLICY_FILE} {name}: {seen}\n" for name, seen in _policy_files(run).items())
    if run.dataset.format:
        with key_named("dataset"):
            text += f"{DATASET_ROWS}: {open_run_dataset(run.dataset).digest}\n"
    if run.dataset.report:      # opened now, so that nothing is trained that cannot be measured
        with key_named("dataset.report"):
            open_report_dataset(run.dataset)
    return Claim(text, base_of(run))


def base_of(run: RunConfig) -> str:
    """What tells the model that a run starts from from others.

    Raises:
      ConfigError: there is no model at `run.base`.
    """
    if run.base == SCRATCH:     # follows from the config
        return SCRATCH
    with key_named("base"):
        return weights_hash(model_dir(run.base))


def _policy_files(run: RunConfig) -> dict[str, str]:
    """Hashes of the policy files that stages name: part of what is run, as the config is."""
    found = {}
    for index, stage in enumerate(run.stages):
        for key in ("policies", "house"):
            if is_policy_file(name := getattr(stage, key)):
                with key_named(f"stages.{index}.{key}"):
                    named_policy(name)
                found[name] = hashlib.sha256(pathlib.Path(name).read_bytes()).hexdigest()[:16]
    return found


def load_start(name: str, seed: int, memory: MemoryConfig = MemoryConfig(),
               four_bits: Callable[[str], bool] | None = None, placement: Placement | None = None,
               ) -> tuple[ModelConfig, Any, Batcher]:
    """Config, parameters and batcher that a run starts from.

    Args:
      name: a model folder, a shipped model, or `SCRATCH`.
      seed: the run's.
      memory: how the model is compiled, which says how layers are kept.
      four_bits: see `load_hf`.
      placement: each tensor is put where it will live as it is read, so that no device ever holds
        a model that is meant for several; None is the first device.
    """
    if name != SCRATCH:
        path = model_dir(name)
        cfg = _compiled(read_config(path), memory)
        places = None if placement is None else placement.shardings(param_shapes(cfg))
        cfg, params = models.load_hf(path, cfg, shardings=places, four_bits=four_bits)
        return cfg, params if placement else on_one_device(params), load_batcher(path)
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = train_tokenizer(world_corpus(seed), 1024, folder)
    width = -(-tokenizer.vocab_size // 64) * 64
    cfg = _compiled(tiny_config(width, first_special_id=tokenizer.pad_id), memory)
    params = models.liken_queries_to_keys(models.init_params(cfg, jax.random.key(seed)), cfg)
    params = on_one_device(params) if placement is None else placement.put(params)
    return cfg, params, Batcher(tokenizer, _PATCHES, cfg.vision.window_units)


def model_config(run: RunConfig) -> ModelConfig:
    """The model's config as the run compiles it, without its weights; a release need not be there.

    That of `SCRATCH` has the usual vocabulary, as its own is not made yet.

    Raises:
      ConfigError: there is no model of that name, or it cannot be compiled so.
    """
    if run.base == SCRATCH:
        return _as_run(tiny_config(), run)
    path, size = model_dir(run.base), release_of(run.base)
    if not (path / CONFIG_FILE).is_file() and size is None:
        raise ConfigError(f"base: {run.base!r} is no model folder, and no release such as "
                          "Qwen/Qwen2.5-VL-7B-Instruct")
    with key_named("base"):
        cfg = (read_config(path) if (path / CONFIG_FILE).is_file()
               else ModelConfig.from_hf(RELEASES[size]))
        return _as_run(cfg, run)


def _as_run(cfg: ModelConfig, run: RunConfig) -> ModelConfig:
    return dataclasses.replace(
        _compiled(cfg, run.memory), dtype=run.dtype, attention=run.attention)


def _compiled(cfg: ModelConfig, memory: MemoryConfig) -> ModelConfig:
    """The config with the run's keys of the same names."""
    return dataclasses.replace(cfg, **dataclasses.asdict(memory))


def policy_splits() -> PolicySplits:
    """The frozen splits of policies over the world's vocabulary."""
    return make_splits(catalogue.vocabulary())


def world_directory(run: RunConfig) -> pathlib.Path:
    """The built world of a run, made if need be; none for a run over a data set."""
    if run.dataset.format:
        return pathlib.Path(run.dataset.dir)
    return builder.build(cache_dir() / "world", run.world.sizes, run.world.seed)


def make_stage(
    config: StageConfig, model: StageModel, directory: pathlib.Path, seed: int,
    dataset: DatasetConfig = DatasetConfig(), folder: pathlib.Path | None = None,
) -> Any:
    """One stage over its data: the world built in `directory`, or a data set.

    Args:
      config: its config.
      model: what it trains.
      directory: of the world.
      seed: the run's.
      dataset: what takes the world's place, if it has a format.
      folder: the run's, where weights for an engine are put; needed with one only.

    Raises:
      ValueError: a value that does not fit the data or the model.
      EngineError: the stage's engine is not there, or cannot stand in for the model.
    """
    seed = seed * 1000 + config.seed
    batches = config.steps * (config.rl.dynamic_rounds if config.rl.dynamic_sampling else 1)
    rows = slice(None) if model.placement is None else model.placement.rows(config.batch)
    make = _STAGES.get(config.kind)
    if config.rl.engine != "local":
        make = functools.partial(make, engine=connect_engine(config, model, folder))
    if dataset.format:
        source = record_batches(config, dataset, model.batcher, batches, seed, rows)
        return _fitting(make(config, model, source, seed), model)
    if config.kind == "sight":
        source = SightSource(
            model.batcher, batch=config.batch, num_batches=config.steps, seed=seed, rows=rows)
        return _fitting(SightStage(config, model, source, seed), model)
    draw = (varied_policies(policy_splits(), config.plain_share) if config.policies == "varied"
            else one_policy(named_policy(config.policies)))
    records = list(builder.load(directory, "train"))
    if config.kind == "bp_adapt":
        pairs = MatchedPairs(records, draw, model.batcher, batch=config.batch,
                             num_batches=batches, seed=seed, rows=rows)
        return _fitting(BPAdaptStage(config, model, pairs, seed), model)
    source = BatchSource(
        records, draw, model.batcher, mixture=config.data,
        batch=config.batch, num_batches=batches, seed=seed, think=config.think,
        flip_share=0.5 if config.policies == "varied" else 0.0,
        spell_share=config.spell_share,
        house=named_policy(config.house) if config.house else None, rows=rows,
        policies_per_image=config.policies_per_image)
    return _fitting(make(config, model, source, seed), model)


def _fitting(stage: Any, model: StageModel) -> Any:
    """The stage, if what it freezes and adapts is there: not first seen when the stage begins."""
    stage.recipe.check(param_shapes(model.cfg))
    check_adapters(stage.recipe, model.cfg)
    return stage


@contextlib.contextmanager
def key_named(key: str) -> Iterator[None]:
    """Names the config's key in the error of a value that only the parts themselves can check."""
    try:
        yield
    except ConfigError:
        raise
    except (ValueError, FileNotFoundError) as error:
        raise ConfigError(f"{key}: {error}") from error
