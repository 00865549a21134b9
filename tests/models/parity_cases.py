"""Shapes and inputs on which the port is held against the reference. NumPy only.

The shapes are the four releases made small, beside two of odd numbers. Head size, depth and widths
are divided; what makes a release itself is kept: how many query heads share a key head, the order
of window and full blocks, the shares of the rotary sections, patch and window sizes, tied or not.
"""

from __future__ import annotations

import dataclasses
import math
import zlib
from typing import NamedTuple

import numpy as np

from guardjax.models.config import ModelConfig
from tests.models.reference_cases import TIED, UNTIED, Row
from guardjax.models.releases import RELEASES

VOCAB = 112
WORDS = 100                 # ids below are words
_IDS = {"image_token_id": 101, "video_token_id": 102, "vision_start_token_id": 103,
        "vision_end_token_id": 104}


def shrunk(size: str, blocks: int = 4, layers: int = 12) -> ModelConfig:
    """The release of a size with an eighth of the head size.

    The vision tower's depth is divided by `blocks` and the decoder's by `layers`.
    """
    cfg = ModelConfig.from_hf(RELEASES[size])
    text, vision = cfg.text, cfg.vision
    groups = text.num_attention_heads // text.num_key_value_heads
    key_heads = max(1, text.num_key_value_heads // 4)
    width = key_heads * groups * text.head_dim // 8
    small_text = dataclasses.replace(
        text, vocab_size=VOCAB, hidden_size=width, num_attention_heads=key_heads * groups,
        num_key_value_heads=key_heads, num_hidden_layers=text.num_hidden_layers // layers,
        intermediate_size=text.intermediate_size * width // text.hidden_size,
        mrope_section=tuple(n // 8 for n in text.mrope_section),
        bos_token_id=None, eos_token_id=None)
    small_vision = dataclasses.replace(
        vision, depth=vision.depth // blocks, hidden_size=vision.hidden_size // 16,
        intermediate_size=vision.intermediate_size // 16, num_heads=vision.num_heads // 4,
        out_hidden_size=width,
        fullatt_block_indexes=tuple(n // blocks for n in vision.fullatt_block_indexes))
    return dataclasses.replace(cfg, text=small_text, vision=small_vision, **_IDS)


SHAPES: dict[str, ModelConfig] = {
    "odd, tied": TIED, "odd, untied": UNTIED, **{size: shrunk(size) for size in RELEASES}}


class Picture(NamedTuple):
    """(frames, rows, columns) in merged units beyond a window; `seconds` makes it a video.

    `rows` and `columns` are added to the units along a window's side.
    """

    frames: int
    rows: int
    columns: int
    seconds: float | None = None


# What one row of a batch can hold. Sides of 0 are whole windows, others do not divide.
KINDS: dict[str, tuple[Picture, ...]] = {
    "text": (),
    "one image, whole windows": (Picture(1, 0, 0),),
    "one image": (Picture(1, 1, 2),),
    "several images": (Picture(1, 1, -1), Picture(1, -1, 0), Picture(1, -1, -1)),
    # Steps of 1.4 or 2.8 ids, and of less than one: both are cut to whole numbers.
    "video": (Picture(3, -1, 1, seconds=0.7),),
    "video and images": (Picture(1, -1, 1), Picture(2, 1, -1, seconds=0.4),
                         Picture(1, 0, -1), Picture(4, -1, -1, seconds=1.0)),
}


def make_row(cfg: ModelConfig, kind: str) -> Row:
    """Words, then each picture between its marks, then words."""
    rng = np.random.default_rng(zlib.crc32(kind.encode()))
    merge, side = cfg.vision.spatial_merge_size, cfg.vision.window_units
    words = min(WORDS, cfg.image_token_id)
    tokens, grids = list(rng.integers(0, words, 7)), []
    for picture in KINDS[kind]:
        units = (picture.frames, side + picture.rows, side + picture.columns)
        grids.append((units[0], units[1] * merge, units[2] * merge))
        mark = cfg.image_token_id if picture.seconds is None else cfg.video_token_id
        tokens += [cfg.vision_start_token_id, *[mark] * math.prod(units),
                   cfg.vision_end_token_id, *rng.integers(0, words, 3)]
    tokens += list(rng.integers(0, words, 4))
    count = sum(math.prod(grid) for grid in grids)
    patches = rng.standard_normal((count, cfg.vision.patch_dim)).astype(np.float32)
    seconds = tuple(p.seconds for p in KINDS[kind] if p.seconds is not None)
    return Row(np.asarray(tokens, np.int32), grids, patches if grids else None, seconds)


def make_rows(cfg: ModelConfig) -> list[Row]:
    """One row of every kind."""
    return [make_row(cfg, kind) for kind in KINDS]


def random_tensor(name: str, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Weights of a tensor by its hub name, of a size that keeps activations near one."""
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    values = rng.standard_normal(shape).astype(np.float32)
    if name.endswith("bias"):
        return np.float32(0.2) * values
    if len(shape) == 1:
        return 1 + np.float32(0.2) * values
    if "embed_tokens" in name:
        return np.float32(0.1) * values
    return values / np.float32(math.sqrt(math.prod(shape[1:])))


# Answers of different lengths to each row, for the loss of training.
NUM_ANSWERS, ANSWER_LENGTH = 2, 5


def make_answers(cfg: ModelConfig, num_rows: int) -> tuple[np.ndarray, np.ndarray]:
    """(tokens [B, G, T] int32, length [B, G] int32)."""
    rng = np.random.default_rng(5)
    shape = (num_rows, NUM_ANSWERS, ANSWER_LENGTH)
    tokens = rng.integers(0, min(WORDS, cfg.image_token_id), shape).astype(np.int32)
    return tokens, rng.integers(2, ANSWER_LENGTH + 1, shape[:2]).astype(np.int32)


# Greedy answers: a word that several of the answers come to, so that some end early.
MAX_TOKENS, END_ID = 12, 48

# What of this is checked in every run of the tests, each a program of its own to compile; the
# table of `experiments/parity` has all of it for all shapes.
GRADIENT_SHAPES = ("odd, tied",)
GREEDY_SHAPES = ("odd, untied",)
BF16_SHAPES = ("3B",)


def some_tokens(row: Row) -> np.ndarray:
    """[6] int: tokens of a row whose logits are stored, the last among them."""
    return np.linspace(0, len(row.tokens) - 1, 6).astype(int)
