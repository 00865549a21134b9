"""The positions that a model's decoder was trained to see."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from guardjax.layout import mrope_positions, plain_positions
from guardjax.models.config import ModelConfig


def prompt_positions(cfg: ModelConfig, tokens: np.ndarray, grids: Sequence[Sequence[int]],
                     seconds: Sequence[float] = ()) -> tuple[np.ndarray, int]:
    """Positions of one unpadded prompt, as the family's code in transformers counts them.

    Args:
        cfg: the model's.
        tokens: [T] int.
        grids: (frames, rows, columns) in patches, in the order of the placeholders.
        seconds: of each video, the time that a temporal patch takes.

    Returns:
        (positions [T, 3] int32, the position of text that goes on after it).

    Raises:
        ValueError: as `mrope_positions`.
    """
    if cfg.text.plain_positions:
        return plain_positions(len(tokens))
    return mrope_positions(
        tokens, grids, image_token_id=cfg.image_token_id, merge=cfg.vision.spatial_merge_size,
        video_token_id=cfg.video_token_id,
        video_steps=[cfg.vision.video_step(second) for second in seconds])
