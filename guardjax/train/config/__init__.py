"""The schema of a run: what a config file may say, what each field means, what is the default.

A config file returns an `ml_collections.ConfigDict` that names only what differs from the
defaults; `resolve` turns it into a frozen `RunConfig`, in which every value is explicit.
"""

from guardjax.train.config.data import DatasetConfig, WorldConfig
from guardjax.train.config.lengths import LengthsConfig
from guardjax.train.config.machine import (
    CheckpointConfig,
    GuardConfig,
    LogConfig,
    MemoryConfig,
    MeshConfig,
)
from guardjax.train.config.optim import LoraConfig, OptimConfig
from guardjax.train.config.rl import HingeConfig, RLConfig
from guardjax.train.config.run import RunConfig, resolve
from guardjax.train.config.stage import EXAMPLE_KINDS, LABELLED, StageConfig
from guardjax.train.config.typed import ConfigError, digest, from_text, to_text, unknown_name

__all__ = [
    "EXAMPLE_KINDS", "LABELLED", "CheckpointConfig", "ConfigError", "DatasetConfig", "GuardConfig",
    "HingeConfig", "LengthsConfig", "LogConfig", "LoraConfig", "MemoryConfig", "MeshConfig",
    "OptimConfig", "RLConfig", "RunConfig", "StageConfig", "WorldConfig", "digest", "from_text",
    "resolve", "to_text", "unknown_name",
]
