"""Small models and inputs that our port and the reference both build from seeds, without torch."""

from __future__ import annotations

import dataclasses
import zlib

import numpy as np

from guardjax.layout import VisionLayout, feature_index, pack_vision, vision_layout
from guardjax.models.config import ModelConfig, TextConfig, VisionConfig
from guardjax.models.positions import prompt_positions
from guardjax.types import Segment, VisionInputs

VOCAB = 96
IMAGE_ID, VIDEO_ID, START_ID, END_ID = 90, 91, 92, 93

TIED = ModelConfig(
    vision=VisionConfig(depth=3, hidden_size=32, intermediate_size=40, num_heads=2,
                        out_hidden_size=48, patch_size=4, window_size=16,
                        fullatt_block_indexes=(1,)),
    text=TextConfig(vocab_size=VOCAB, hidden_size=48, intermediate_size=56, num_hidden_layers=2,
                    num_attention_heads=4, num_key_value_heads=2, mrope_section=(2, 1, 3),
                    rope_theta=10000.0, rms_norm_eps=1e-6),
    image_token_id=IMAGE_ID, video_token_id=VIDEO_ID, vision_start_token_id=START_ID,
    vision_end_token_id=END_ID, tie_word_embeddings=True)

UNTIED = dataclasses.replace(
    TIED, tie_word_embeddings=False,
    vision=dataclasses.replace(TIED.vision, num_heads=4, window_size=24,
                               fullatt_block_indexes=(0, 2)),
    text=dataclasses.replace(TIED.text, num_hidden_layers=3, num_attention_heads=3,
                             num_key_value_heads=1, mrope_section=(2, 3, 3), rope_theta=1e6,
                             rms_norm_eps=1e-5))

CONFIGS = {"tied": TIED, "untied": UNTIED}

# The least that has every kind of layer, for tests that compile much.
SMALLEST = dataclasses.replace(TIED, vision=dataclasses.replace(TIED.vision, depth=2))

# Grids of patches. Windows are 4 or 6 patches wide, so several do not divide.
ROWS: dict[str, list[tuple[int, int, int]]] = {
    "text": [],
    "one_window": [(1, 4, 4)],
    "odd_grid": [(1, 6, 10)],
    "two_images": [(1, 4, 8), (1, 6, 2)],
    "large_image": [(1, 14, 10)],
}


@dataclasses.dataclass(frozen=True)
class Row:
    """One unpadded prompt: tokens [T] and the patches of its pictures in processor order.

    `seconds` has one entry for each video among the grids: the time that a temporal patch takes.
    """

    tokens: np.ndarray
    grids: list[tuple[int, int, int]]
    patches: np.ndarray | None
    seconds: tuple[float, ...] = ()


def make_row(cfg: ModelConfig, name: str) -> Row:
    """Words, then each image between its marks, then words."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    grids = ROWS[name]
    tokens = list(rng.integers(0, 80, 5))
    for time, rows, columns in grids:
        units = time * rows * columns // cfg.vision.spatial_merge_size**2
        tokens += [START_ID, *[IMAGE_ID] * units, END_ID, *rng.integers(0, 80, 3)]
    tokens += list(rng.integers(0, 80, 6))
    count = sum(t * h * w for t, h, w in grids)
    patches = rng.standard_normal((count, cfg.vision.patch_dim)).astype(np.float32)
    return Row(np.asarray(tokens, np.int32), grids, patches if grids else None)


def seeded_tensor(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Weights of a tensor by its hub name: large enough that every part changes the logits."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    values = rng.standard_normal(shape).astype(np.float32)
    if name.endswith("norm.weight") or "norm1" in name or "norm2" in name or "ln_q" in name:
        return 1 + 0.2 * values
    return 0.2 * values


def make_inputs(cfg: ModelConfig, rows: list[Row], *, length: int | None = None,
                num_slots: int | None = None) -> tuple[Segment, VisionInputs | None]:
    """The rows as one batch, padded on the right to `length` tokens and `num_slots` patches."""
    layouts = [layout_of(cfg, row) for row in rows]
    length = length or max(len(row.tokens) for row in rows)
    num_slots = num_slots or max(layout.num_slots for layout in layouts)
    batch = len(rows)
    tokens = np.zeros((batch, length), np.int32)
    positions = np.zeros((batch, length, 3), np.int32)
    mask = np.zeros((batch, length), bool)
    index = np.full((batch, length), -1, np.int32)
    for b, (row, layout) in enumerate(zip(rows, layouts)):
        n = len(row.tokens)
        tokens[b, :n], mask[b, :n] = row.tokens, True
        positions[b, :n], _ = positions_of(cfg, row)
        index[b, :n] = feature_index(row.tokens, layout, image_token_id=cfg.image_token_id,
                                     video_token_id=cfg.video_token_id)
    if num_slots == 0:
        return Segment(tokens, positions, mask), None
    vision = pack_vision(layouts, [row.patches for row in rows], num_slots, cfg.vision.patch_dim)
    return Segment(tokens, positions, mask, index), vision


def layout_of(cfg: ModelConfig, row: Row) -> VisionLayout:
    return vision_layout(row.grids, window_units=cfg.vision.window_units,
                         merge=cfg.vision.spatial_merge_size)


def positions_of(cfg: ModelConfig, row: Row) -> tuple[np.ndarray, int]:
    """(positions [T, 3], position of the next token)."""
    return prompt_positions(cfg, row.tokens, row.grids, row.seconds)
