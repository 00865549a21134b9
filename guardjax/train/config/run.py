"""The whole config of a run, and how it comes from a file and the command line."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import ml_collections

from guardjax.data.datasets.names import CAPTIONS
from guardjax.train.config.data import DatasetConfig, WorldConfig
from guardjax.train.config.lengths import LengthsConfig
from guardjax.train.config.machine import (
    CheckpointConfig,
    GuardConfig,
    LogConfig,
    MemoryConfig,
    MeshConfig,
)
from guardjax.train.config.stage import StageConfig
from guardjax.train.config.typed import apply_override, build, require, to_tree


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """A whole run: stages in order."""

    name: str                           # names the run's folder
    stages: tuple[StageConfig, ...]
    seed: int = 0                       # every random choice of the run follows from it
    base: str = "base"                  # "base" is the shipped model; else a model folder
    dtype: Literal["float32", "bfloat16"] = "float32"  # of computing; parameters stay float32
    attention: Literal["auto", "xla", "cudnn", "splash"] = "xla"  # see `models.attention`
    template: Literal["image_first", "policy_first"] = "image_first"  # what a prompt begins with
    world: WorldConfig = WorldConfig()
    dataset: DatasetConfig = DatasetConfig()
    lengths: LengthsConfig = LengthsConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    log: LogConfig = LogConfig()
    guard: GuardConfig = GuardConfig()
    mesh: MeshConfig = MeshConfig()
    memory: MemoryConfig = MemoryConfig()

    def __post_init__(self) -> None:
        require(bool(self.name), "name must not be empty")
        names = [stage.name for stage in self.stages]
        twice = sorted({name for name in names if names.count(name) > 1})
        require(not twice, f"stages need different names, repeated: {', '.join(twice)}")
        if self.dataset.format:
            for stage in self.stages:
                _check_over_dataset(stage, self.dataset.format)
        for stage in self.stages:
            require(stage.policies_per_image == 1 or self.template == "image_first",
                    f"stage {stage.name!r}: policies_per_image={stage.policies_per_image} "
                    f"branches after the picture, and template={self.template!r} begins with the "
                    "policy: set one of them to its default")
            require(not stage.rl.slots or self.mesh.rules == "single",
                    f"stage {stage.name!r}: rl.slots={stage.rl.slots} takes prompts from the "
                    f"whole batch, which mesh.rules={self.mesh.rules!r} spreads over devices: set "
                    "it to 0")


def _check_over_dataset(stage: StageConfig, dataset: str) -> None:
    """That a stage asks for what annotated pictures can give: verdicts under their policies, or
    captions to learn."""
    captions = dataset == CAPTIONS
    where = f"stage {stage.name!r} over {'captions' if captions else 'a dataset'}"
    trainers, asked = (("sft",), "caption") if captions else (("sft", "grpo"), "judge")
    require(stage.kind in trainers,
            f"{where} is of kind {' or '.join(trainers)}, not {stage.kind!r}")
    kinds = [kind for kind, weight in stage.data.items() if weight]
    require(kinds == [asked], f"{where} has prompts of kind {asked} only, not {', '.join(kinds)}: "
                              f'set data to {{"{asked}": 1}}')
    require(not (captions and stage.think), f"{where}: think=True puts a rationale before a "
                                            "verdict, and captions have neither: leave it out")
    for name in ("policies", "plain_share", "spell_share"):
        default = next(f.default for f in dataclasses.fields(stage) if f.name == name)
        require(getattr(stage, name) == default,
                f"{where}: {name}={getattr(stage, name)!r} chooses policies of the world; leave "
                "it out: rows have their policies, or dataset.policy gives one")


def resolve(config: ml_collections.ConfigDict | Mapping[str, Any],
            overrides: Sequence[str] = ()) -> RunConfig:
    """Returns the config with every default filled in, after the command line's `key=value`s.

    Overrides look like `stages.0.optim.lr=3e-4`;
    a leading `--config.` or `--` is accepted. Values are parsed by the field's type: text as it
    stands, tuples as `a,b` or JSON, mappings as JSON or one key at a time
    (`stages.0.data.caption=0.2`).

    Raises:
      ConfigError: for an unknown or missing key, a value of the wrong type or out of range.
    """
    tree = to_tree(config)
    for override in overrides:
        tree = apply_override(RunConfig, tree, override)
    return build(RunConfig, tree)
