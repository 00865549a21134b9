"""Plain shapes behind the objects: something to ignore. No policy ever names one of them."""

from __future__ import annotations

import functools

import numpy as np
from PIL import Image, ImageDraw

# Each shape is drawn on a 100 x 100 canvas: (ImageDraw method, coordinates, extra arguments).
SHAPES: tuple[tuple[str, tuple, dict], ...] = (
    ("ellipse", (10, 10, 90, 90), {"fill": 255}),
    ("ellipse", (5, 30, 95, 70), {"fill": 255}),
    ("ellipse", (15, 15, 85, 85), {"outline": 255, "width": 10}),
    ("rectangle", (0, 42, 100, 58), {"fill": 255}),
    ("rectangle", (42, 0, 58, 100), {"fill": 255}),
    ("rectangle", (20, 20, 80, 80), {"fill": 255}),
    ("polygon", ((50, 8), (94, 88), (6, 88)), {"fill": 255}),
    ("line", (0, 100, 100, 0), {"fill": 255, "width": 8}),
    ("line", (0, 0, 100, 100), {"fill": 255, "width": 8}),
)


@functools.lru_cache(maxsize=256)
def distractor(shape: int, image_size: int) -> np.ndarray:
    """Opacity of a shape, float32 [S, S] in 0..1, S even and about 0.4 of the image size."""
    side = max(2, round(0.2 * image_size) * 2)
    canvas = Image.new("L", (100, 100))
    method, coordinates, extra = SHAPES[shape]
    getattr(ImageDraw.Draw(canvas), method)(coordinates, **extra)
    opacity = np.asarray(canvas.resize((side, side), Image.Resampling.BOX), np.float32) / 255
    opacity.setflags(write=False)
    return opacity
