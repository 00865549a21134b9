"""Pixels to patches, as `Qwen2VLImageProcessorPil` does it, in NumPy and Pillow.

A patch is a flat row of `channels * temporal * patch * patch` numbers. Patches of one image come
merge unit by merge unit (2x2 patches that the merger joins), units in row-major order.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from PIL import Image

# CLIP's mean and standard deviation, which Qwen2-VL and Qwen2.5-VL use.
MEAN = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)
STD = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)
MAX_ASPECT = 200


@dataclasses.dataclass(frozen=True)
class PatchSpec:
    """How pictures become patches (`preprocessor_config.json`)."""

    patch_size: int = 14
    temporal_patch_size: int = 2
    merge_size: int = 2
    min_pixels: int = 56 * 56
    max_pixels: int = 28 * 28 * 1280

    @property
    def unit(self) -> int:
        """Pixels along one side of a merge unit: the size of one image token."""
        return self.patch_size * self.merge_size


def smart_size(height: int, width: int, spec: PatchSpec) -> tuple[int, int]:
    """The size to resize to: multiples of a merge unit, pixel count within the limits.

    Raises:
      ValueError: the aspect ratio is above 200, where the processor gives up too.
    """
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


def to_patches(image: np.ndarray, spec: PatchSpec) -> tuple[np.ndarray, tuple[int, int, int]]:
    """Resizes, normalises and cuts one picture.

    Args:
      image: [H, W, 3] uint8.
      spec: sizes.

    Returns:
      (patches [N, 3 * temporal * patch * patch] float32, grid (1, rows, columns) in patches).
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"expected [H, W, 3] uint8 pixels, got {image.shape} {image.dtype}")
    height, width = smart_size(image.shape[0], image.shape[1], spec)
    if (height, width) != image.shape[:2]:
        resized = Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC)
        image = np.asarray(resized)
    pixels = (image.astype(np.float32) * np.float32(1 / 255) - MEAN) / STD
    p, m, t = spec.patch_size, spec.merge_size, spec.temporal_patch_size
    rows, columns = height // p, width // p
    # A still picture is a clip of `t` equal frames.
    cut = pixels.reshape(rows // m, m, p, columns // m, m, p, 3)
    cut = cut.transpose(0, 3, 1, 4, 6, 2, 5)  # unit row, unit column, row, column, channel, y, x
    cut = np.broadcast_to(cut[..., None, :, :], (*cut.shape[:5], t, p, p))
    return cut.reshape(rows * columns, 3 * t * p * p), (1, rows, columns)
