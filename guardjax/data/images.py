"""Pixels to patches, bit for bit as transformers' `Qwen2VLImageProcessorPil`, in NumPy and Pillow.

A patch is a flat row of `channels * temporal * patch * patch` numbers. Patches of one image come
merge unit by merge unit (2x2 patches that the merger joins), units in row-major order.
"""

from __future__ import annotations

import dataclasses
import functools
import math

import numpy as np
from PIL import Image

Triple = tuple[float, float, float]

# CLIP's mean and standard deviation, which Qwen2-VL and Qwen2.5-VL use.
MEAN: Triple = (0.48145466, 0.4578275, 0.40821073)
STD: Triple = (0.26862954, 0.26130258, 0.27577711)
RESCALE = 1 / 255
MAX_ASPECT = 200


@dataclasses.dataclass(frozen=True)
class PatchSpec:
    """How pictures become patches (`preprocessor_config.json`, see `guardjax.data.processor`).

    `mean` and `std` are of red, green and blue between 0 and 1.
    """

    patch_size: int = 14
    temporal_patch_size: int = 2
    merge_size: int = 2
    min_pixels: int = 56 * 56
    max_pixels: int = 28 * 28 * 1280
    mean: Triple = MEAN
    std: Triple = STD

    def __post_init__(self) -> None:
        for name in ("patch_size", "temporal_patch_size", "merge_size", "min_pixels"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.max_pixels < max(self.min_pixels, self.unit**2):
            raise ValueError(f"max_pixels {self.max_pixels} is less than min_pixels "
                             f"{self.min_pixels} or one image token of {self.unit}x{self.unit}")
        if min(self.std) <= 0:
            raise ValueError(f"std {self.std} must be positive")

    @property
    def unit(self) -> int:
        """Pixels along one side of a merge unit: the size of one image token."""
        return self.patch_size * self.merge_size

    @property
    def patch_dim(self) -> int:
        """Length of a patch's row."""
        return 3 * self.temporal_patch_size * self.patch_size**2


def smart_size(height: int, width: int, spec: PatchSpec) -> tuple[int, int]:
    """The size to resize to: multiples of a merge unit, pixel count within the limits.

    Raises:
      ValueError: a side of 0, or an aspect ratio above 200, where the processor gives up too.
    """
    if min(height, width) < 1:
        raise ValueError(f"picture of {width}x{height} pixels: it is empty")
    if max(height, width) / min(height, width) > MAX_ASPECT:
        raise ValueError(
            f"picture of {width}x{height} pixels: aspect ratio above {MAX_ASPECT}; crop it first"
        )
    unit = spec.unit
    new_height, new_width = round(height / unit) * unit, round(width / unit) * unit
    if new_height * new_width > spec.max_pixels:
        scale = math.sqrt(height * width / spec.max_pixels)
        new_height = max(unit, math.floor(height / scale / unit) * unit)
        new_width = max(unit, math.floor(width / scale / unit) * unit)
    elif new_height * new_width < spec.min_pixels:
        scale = math.sqrt(spec.min_pixels / (height * width))
        new_height = math.ceil(height * scale / unit) * unit
        new_width = math.ceil(width * scale / unit) * unit
    return new_height, new_width


def resize(image: np.ndarray, spec: PatchSpec) -> np.ndarray:
    """[H, W, 3] uint8 to the size of `smart_size`, bicubic.

    Raises:
      ValueError: not such an array, or as `smart_size`.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"expected [H, W, 3] uint8 pixels, got {image.shape} {image.dtype}")
    height, width = smart_size(image.shape[0], image.shape[1], spec)
    if (height, width) == image.shape[:2]:
        return image
    resized = Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(resized)


def patch_grid(image: np.ndarray, spec: PatchSpec) -> tuple[int, int, int]:
    """The grid that `to_patches` gives: (1, rows, columns) in patches."""
    height, width = smart_size(image.shape[0], image.shape[1], spec)
    return 1, height // spec.patch_size, width // spec.patch_size


def to_patches(image: np.ndarray, spec: PatchSpec) -> tuple[np.ndarray, tuple[int, int, int]]:
    """Resizes, normalises and cuts one picture.

    Args:
      image: [H, W, 3] uint8.
      spec: sizes, mean and standard deviation.

    Returns:
      (patches [N, 3 * temporal * patch * patch] float32, grid (1, rows, columns) in patches).

    Raises:
      ValueError: as `resize`.
    """
    pixels = resize(image, spec)
    p, m, t = spec.patch_size, spec.merge_size, spec.temporal_patch_size
    rows, columns = pixels.shape[0] // p, pixels.shape[1] // p
    cut = pixels.reshape(rows // m, m, p, columns // m, m, p, 3)
    cut = cut.transpose(0, 3, 1, 4, 6, 2, 5)  # unit row, unit column, row, column, channel, y, x
    values = np.stack([levels(spec.mean, spec.std)[c][cut[..., c, :, :]] for c in range(3)], 4)
    # A still picture is a clip of `t` equal frames.
    clip = np.broadcast_to(values[..., None, :, :], (*values.shape[:5], t, p, p))
    return clip.reshape(rows * columns, spec.patch_dim), (1, rows, columns)


@functools.lru_cache(maxsize=8)
def levels(mean: Triple, std: Triple) -> np.ndarray:
    """[3, 256] float32: what each 8-bit level of each channel is normalised to.

    A table, because the processor rounds in a certain order (scaled in float64, the rest in
    float32), and 768 numbers in that order are cheaper than a picture of them.
    """
    scaled = (np.arange(256, dtype=np.float64) * RESCALE).astype(np.float32)
    return np.stack([(scaled - np.float32(m)) / np.float32(s)
                     for m, s in zip(mean, std, strict=True)])
