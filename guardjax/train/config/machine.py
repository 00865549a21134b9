"""What a run does not learn from: checkpoints, logs, guards, devices, memory."""

from __future__ import annotations

import dataclasses
from typing import Literal

from guardjax.models.config import Remat
from guardjax.train.config.typed import require


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
    """When the state is kept."""

    every_steps: int = 100              # also at the end of a stage and on SIGTERM
    keep: int = 2                       # newest so many are kept
    best_metric: str = ""               # of the last stage; its best are kept beside the newest
    best_mode: Literal["max", "min"] = "max"    # which values are better
    best_keep: int = 1                  # best so many are kept

    def __post_init__(self) -> None:
        require(self.every_steps >= 1, f"every_steps must be >= 1, got {self.every_steps}")
        for name in ("keep", "best_keep"):
            require(getattr(self, name) >= 1, f"{name} must be >= 1, got {getattr(self, name)}")
        require(bool(self.best_metric) or (self.best_mode, self.best_keep) == ("max", 1),
                f"best_mode={self.best_mode!r} and best_keep={self.best_keep} are for a "
                "best_metric, and none is named: name one, or leave them out")


@dataclasses.dataclass(frozen=True)
class LogConfig:
    """What is written and shown."""

    every_steps: int = 10               # one line of metrics, reduced over these steps
    table_every_steps: int = 50         # one table of sampled answers; 0 shows none
    groups_every_steps: int = 10        # whole groups into groups.jsonl, also at the end of a
                                        # stage, at most 64 KiB a step; 0 keeps none
    peak_flops: float = 0.0             # of one device a second, for MFU; 0: the published figure
    tensorboard: bool = False           # event files in the run's folder
    wandb_project: str = ""             # Weights & Biases; empty: none
    wandb_mode: Literal["online", "offline"] = "online"

    def __post_init__(self) -> None:
        require(self.every_steps >= 1, f"every_steps must be >= 1, got {self.every_steps}")
        require(self.table_every_steps >= 0,
                f"table_every_steps must be >= 0, got {self.table_every_steps}")
        require(self.groups_every_steps >= 0,
                f"groups_every_steps must be >= 0, got {self.groups_every_steps}")
        require(self.peak_flops >= 0, f"peak_flops must be >= 0, got {self.peak_flops}")
        require(bool(self.wandb_project) or self.wandb_mode == "online",
                f"wandb_mode={self.wandb_mode!r} is for a wandb_project, and none is named")


@dataclasses.dataclass(frozen=True)
class GuardConfig:
    """When a run that yields no finite numbers gives up, and one that hangs."""

    max_bad_steps: int = 10             # consecutive skipped steps
    hang_seconds: float = 900.0         # without a finished step: say where it stands; 0 never
    hang_exit_seconds: float = 3600.0   # without a finished step: end with status 75; 0 never

    def __post_init__(self) -> None:
        require(self.max_bad_steps >= 1, f"max_bad_steps must be >= 1, got {self.max_bad_steps}")
        for name in ("hang_seconds", "hang_exit_seconds"):
            require(getattr(self, name) >= 0, f"{name} must be >= 0, got {getattr(self, name)}")
        require(not self.hang_exit_seconds or self.hang_seconds <= self.hang_exit_seconds,
                f"hang_seconds={self.hang_seconds:g} is more than hang_exit_seconds="
                f"{self.hang_exit_seconds:g}: the run would end before it says where it hangs")


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Devices as a grid; at most one size may be -1, which takes all that are left."""

    data: int = 1                       # replicas of the parameters, B is split over them
    fsdp: int = 1                       # parameters and B are split over these
    tensor: int = 1                     # width of layers is split over these
    rules: Literal["single", "data_parallel", "fsdp", "fsdp_tensor"] = "single"
                                        # what goes where, see `sharding.RULE_SETS`

    def __post_init__(self) -> None:
        sizes = (self.data, self.fsdp, self.tensor)
        require(all(n >= 1 or n == -1 for n in sizes) and sizes.count(-1) <= 1,
                f"sizes must be positive, with at most one -1, got {sizes}")


@dataclasses.dataclass(frozen=True)
class MemoryConfig:
    """What a model is compiled to: less memory and smaller programs, or speed when it is small."""

    scan_layers: bool = False           # one compiled layer over stacked parameters
    remat: Remat = "none"               # what the backward pass computes again, see `models.remat`
