"""Pictures of one size for LLaVA, bit for bit as transformers' Pillow processors make them.

CLIP's resizes the shorter side and crops the middle, SigLIP's stretches the picture to a square.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from PIL import Image

from guardjax.data.images import MAX_ASPECT, MEAN, STD, Triple, levels


@dataclasses.dataclass(frozen=True)
class SquareSpec:
    """How pictures become squares of patches; `crops` is CLIP's way, otherwise SigLIP's.

    `mean` and `std` are of red, green and blue between 0 and 1.
    """

    image_size: int
    patch_size: int = 14
    crops: bool = True
    mean: Triple = MEAN
    std: Triple = STD

    def __post_init__(self) -> None:
        if not 1 <= self.patch_size <= self.image_size:
            raise ValueError(f"patch_size {self.patch_size} must be between 1 and image_size "
                             f"{self.image_size}")
        if min(self.std) <= 0:
            raise ValueError(f"std {self.std} must be positive")

    @property
    def side(self) -> int:
        """Patches along one side; pixels beyond the last whole patch are left out."""
        return self.image_size // self.patch_size


def to_square(image: np.ndarray, spec: SquareSpec) -> np.ndarray:
    """[H, W, 3] uint8 to [image_size, image_size, 3] uint8, bicubic.

    Raises:
      ValueError: not such an array, an empty picture, or an aspect ratio above 200.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"expected [H, W, 3] uint8 pixels, got {image.shape} {image.dtype}")
    height, width = image.shape[:2]
    if min(height, width) < 1 or max(height, width) > MAX_ASPECT * min(height, width):
        raise ValueError(f"picture of {width}x{height} pixels: it is empty or its aspect ratio is "
                         f"above {MAX_ASPECT}; crop it first")
    size = spec.image_size
    if not spec.crops:
        return _resized(image, size, size)
    short = min(height, width)
    image = _resized(image, int(size * height / short), int(size * width / short))
    top, left = (image.shape[0] - size) // 2, (image.shape[1] - size) // 2
    return image[top:top + size, left:left + size]


def to_square_patches(image: np.ndarray, spec: SquareSpec,
                      ) -> tuple[np.ndarray, tuple[int, int, int]]:
    """Resizes, crops, normalises and cuts one picture.

    Args:
      image: [H, W, 3] uint8.
      spec: size, mean and standard deviation.

    Returns:
      (patches [N, 3 * patch * patch] float32 in rows, grid (1, rows, columns) in patches).

    Raises:
      ValueError: as `to_square`.
    """
    side, patch = spec.side, spec.patch_size
    pixels = to_square(image, spec)[:side * patch, :side * patch]
    cut = pixels.reshape(side, patch, side, patch, 3).transpose(0, 2, 4, 1, 3)
    table = levels(spec.mean, spec.std)
    values = np.stack([table[channel][cut[:, :, channel]] for channel in range(3)], 2)
    return values.reshape(side * side, -1), (1, side, side)


def _resized(image: np.ndarray, height: int, width: int) -> np.ndarray:
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))
