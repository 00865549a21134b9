"""How parameters move: the optimiser, and which adapters stand for them."""

from __future__ import annotations

import dataclasses
import re
from typing import Literal

from guardjax.train.config.typed import require


@dataclasses.dataclass(frozen=True)
class OptimConfig:
    """AdamW and its schedule."""

    lr: float = 1e-3                    # peak learning rate
    schedule: Literal["cosine", "constant", "linear"] = "cosine"  # after warm-up; ends at 0
    warmup_steps: int = 0               # linear from 0 to lr
    weight_decay: float = 0.0           # not on biases, norms and embeddings
    clip_norm: float = 1.0              # global gradient norm; 0 does not clip
    b1: float = 0.9                     # decay of the first moment
    b2: float = 0.95                    # decay of the second moment

    def __post_init__(self) -> None:
        require(self.lr > 0, f"lr must be positive, got {self.lr}")
        require(self.warmup_steps >= 0, f"warmup_steps must be >= 0, got {self.warmup_steps}")
        require(self.weight_decay >= 0, f"weight_decay must be >= 0, got {self.weight_decay}")
        require(self.clip_norm >= 0, f"clip_norm must be >= 0, got {self.clip_norm}")
        for name in ("b1", "b2"):
            beta = getattr(self, name)
            require(0 <= beta < 1, f"{name} must be in [0, 1), got {beta}")


@dataclasses.dataclass(frozen=True)
class LoraConfig:
    """Low-rank adapters; rank 0 trains the parameters themselves."""

    rank: int = 0
    alpha: float = 16.0                 # adapters are scaled by alpha / rank
    targets: tuple[str, ...] = (        # names or patterns of modules, see `lora.target_kernels`
        "model/.*/self_attn/[qkvo]_proj", "model/.*/mlp/(gate|up|down)_proj")
    base: Literal["whole", "nf4"] = "whole"  # frozen decoder layers: as they are, or in four bits

    def __post_init__(self) -> None:
        require(self.rank >= 0, f"rank must be >= 0, got {self.rank}")
        require(self.alpha > 0, f"alpha must be positive, got {self.alpha}; for no adapters set "
                                "rank to 0")
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            require(self.rank > 0 or value == field.default,
                    f"{field.name}={value!r} is for adapters, and rank is 0: set rank, or leave "
                    f"{field.name} out")
        require(bool(self.targets), "targets must name a module; for no adapters set rank to 0")
        for target in self.targets:
            try:
                re.compile(f"(?:{target})")     # as a part, which is how it will stand
            except re.error as error:
                raise ValueError(
                    f"targets: {target!r} is no regular expression: {error}") from error
