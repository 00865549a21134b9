"""The shapes of the two kinds of vision towers."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

Norm = Literal["rms", "layer"]
MLP = Literal["swiglu", "quick_gelu"]       # gated, or two layers with that activation between
ACTIVATIONS = ("quick_gelu", "gelu", "gelu_pytorch_tanh")       # in a `ClipConfig`


@dataclasses.dataclass(frozen=True)
class VisionConfig:
    """The tower of Qwen2.5-VL and Qwen2-VL: pictures of any size, merged units of patches.

    `window_size` is in pixels; attention is full, within a frame, only in the listed blocks. Where
    it is None there are no windows, and attention is full in all. `tokens_per_second` is how fast
    a video's time moves on; where it is None, by one from a temporal patch to the next.
    """

    depth: int
    hidden_size: int
    intermediate_size: int
    num_heads: int
    out_hidden_size: int
    patch_size: int = 14
    spatial_merge_size: int = 2
    temporal_patch_size: int = 2
    window_size: int | None = 112
    fullatt_block_indexes: tuple[int, ...] = (7, 15, 23, 31)
    in_channels: int = 3
    tokens_per_second: int | None = 4
    rope_theta: float = 10000.0
    norm: Norm = "rms"
    mlp: MLP = "swiglu"

    def __post_init__(self) -> None:
        if self.hidden_size % self.num_heads or (self.hidden_size // self.num_heads) % 4:
            raise ValueError(
                f"vision hidden_size {self.hidden_size} over {self.num_heads} heads must give a "
                "head size that is a multiple of 4 (2-D rotary)")
        if self.window_units < 1:
            raise ValueError(
                f"window_size {self.window_size} holds no merged unit of "
                f"{self.patch_size * self.spatial_merge_size} pixels")

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_heads

    @property
    def patch_shape(self) -> tuple[int, ...]:
        """Channels, frames, rows, columns."""
        return self.in_channels, self.temporal_patch_size, self.patch_size, self.patch_size

    @property
    def patch_dim(self) -> int:
        """Length of one flattened patch."""
        return math.prod(self.patch_shape)

    @property
    def window_units(self) -> int:
        """Merged units along one side of a window; without windows, units stand alone."""
        if self.window_size is None:
            return 1
        return self.window_size // self.spatial_merge_size // self.patch_size

    @property
    def window_patches(self) -> int:
        """Patches in one full window."""
        return (self.window_units * self.spatial_merge_size) ** 2

    @property
    def full_blocks(self) -> tuple[int, ...]:
        """The blocks in which attention is full."""
        return tuple(range(self.depth)) if self.window_size is None else self.fullatt_block_indexes

    @property
    def window_run(self) -> int | None:
        """Window blocks before each full one where that repeats to the end, as in every release."""
        if not self.full_blocks:
            return None
        period = self.full_blocks[0] + 1
        regular = tuple(range(period - 1, self.depth, period))
        return period - 1 if self.full_blocks == regular and self.depth % period == 0 else None

    def video_step(self, seconds: float) -> float:
        """How far time moves on from a temporal patch of `seconds` to the next, for M-RoPE ids."""
        return 1.0 if self.tokens_per_second is None else self.tokens_per_second * seconds


@dataclasses.dataclass(frozen=True)
class ClipConfig:
    """The tower of LLaVA, and the projector behind it: pictures of one size, a feature a patch.

    `style` is "clip" (a class token, a norm before the blocks) or "siglip" (neither, and a bias of
    the patches). Features are taken after `feature_blocks` blocks; later ones are stored only. It
    answers to the names of `VisionConfig` that others ask for: a picture is one window.
    """

    depth: int
    hidden_size: int
    intermediate_size: int
    num_heads: int
    out_hidden_size: int
    image_size: int
    feature_blocks: int
    style: Literal["clip", "siglip"] = "clip"
    hidden_act: str = "quick_gelu"
    eps: float = 1e-5
    patch_size: int = 14
    in_channels: int = 3

    def __post_init__(self) -> None:
        if self.hidden_size % self.num_heads:
            raise ValueError(f"vision hidden_size {self.hidden_size} does not divide into "
                             f"{self.num_heads} heads")
        if self.hidden_act not in ACTIVATIONS:
            raise ValueError(f"hidden_act {self.hidden_act!r} is not implemented, only "
                             f"{', '.join(ACTIVATIONS)}")
        if self.patch_size > self.image_size:
            raise ValueError(f"image_size {self.image_size} holds no patch of {self.patch_size} "
                             "pixels")

    spatial_merge_size = 1
    window_run = None       # these blocks are never stacked

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_heads

    @property
    def window_units(self) -> int:
        """Patches along one side of a picture; what is over is left out."""
        return self.image_size // self.patch_size

    @property
    def window_patches(self) -> int:
        return self.window_units**2

    @property
    def patch_shape(self) -> tuple[int, ...]:
        """Channels, rows, columns."""
        return self.in_channels, self.patch_size, self.patch_size

    @property
    def patch_dim(self) -> int:
        return math.prod(self.patch_shape)
