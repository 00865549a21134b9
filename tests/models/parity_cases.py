"""Shapes and inputs on which the port is held against the reference. NumPy only.

The shapes are releases made small, those of Qwen2.5-VL beside two of odd numbers. Head size, depth
and widths are divided; what makes a release itself is kept: how many query heads share a key head,
the order of window and full blocks, the shares of the rotary sections, patch and window sizes, tied
or not.
"""

from __future__ import annotations

import dataclasses
import math
import zlib
from typing import NamedTuple

import numpy as np

from guardjax.models.config import ClipConfig, ModelConfig, TextConfig, VisionConfig
from guardjax.models.releases import FAMILY_RELEASES, RELEASES
from tests.models.reference_cases import TIED, UNTIED, Row

VOCAB = 112
WORDS = 100                 # ids below are words
_IDS = {"image_token_id": 101, "video_token_id": 102, "vision_start_token_id": 103,
        "vision_end_token_id": 104}


def shrunk(size: str, blocks: int = 4, layers: int = 12) -> ModelConfig:
    """The release of a size with an eighth of the head size.

    The vision tower's depth is divided by `blocks` and the decoder's by `layers`.
    """
    cfg = ModelConfig.from_hf((RELEASES | FAMILY_RELEASES)[size])
    text = _shrunk_text(cfg.text, layers)
    tower = _shrunk_clip if isinstance(cfg.vision, ClipConfig) else _shrunk_tower
    ids = {name: value for name, value in _IDS.items() if getattr(cfg, name) is not None}
    return dataclasses.replace(
        cfg, text=text, vision=tower(cfg.vision, blocks, text.hidden_size), **ids)


def _shrunk_text(text: TextConfig, layers: int) -> TextConfig:
    groups = text.num_attention_heads // text.num_key_value_heads
    key_heads = max(1, text.num_key_value_heads // 4)
    width = key_heads * groups * text.head_dim // 8
    return dataclasses.replace(
        text, vocab_size=VOCAB, hidden_size=width, num_attention_heads=key_heads * groups,
        num_key_value_heads=key_heads, num_hidden_layers=text.num_hidden_layers // layers,
        intermediate_size=text.intermediate_size * width // text.hidden_size,
        mrope_section=tuple(n // 8 for n in text.mrope_section),
        bos_token_id=None, eos_token_id=None)


def _shrunk_tower(vision: VisionConfig, blocks: int, width: int) -> VisionConfig:
    return dataclasses.replace(
        vision, depth=vision.depth // blocks, hidden_size=vision.hidden_size // 16,
        intermediate_size=vision.intermediate_size // 16, num_heads=vision.num_heads // 4,
        out_hidden_size=width,
        fullatt_block_indexes=tuple(n // blocks for n in vision.fullatt_block_indexes))


def _shrunk_clip(vision: ClipConfig, blocks: int, width: int) -> ClipConfig:
    """Pictures of 4 x 4 patches; as many blocks and pixels are left over as in the release."""
    left, depth = vision.depth - vision.feature_blocks, vision.depth // blocks
    return dataclasses.replace(
        vision, depth=depth, feature_blocks=depth - left, hidden_size=vision.hidden_size // 16,
        intermediate_size=vision.intermediate_size // 16, num_heads=vision.num_heads // 4,
        out_hidden_size=width,
        image_size=4 * vision.patch_size + vision.image_size % vision.patch_size)


RELEASE_SHAPES: dict[str, ModelConfig] = {
    "odd, tied": TIED, "odd, untied": UNTIED, **{size: shrunk(size) for size in RELEASES}}
FAMILY_SHAPES: dict[str, ModelConfig] = {
    "Qwen2-VL 2B": shrunk("Qwen2-VL 2B", blocks=16, layers=14),
    "LLaVA 1.5 7B": shrunk("LLaVA 1.5 7B", blocks=8, layers=16),
    "LLaVA SigLIP 0.5B": shrunk("LLaVA SigLIP 0.5B", blocks=13)}
SHAPES = RELEASE_SHAPES | FAMILY_SHAPES


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


def kinds_of(cfg: ModelConfig) -> list[str]:
    """The names of the rows that a model of this family can be asked."""
    has_videos = cfg.video_token_id is not None
    return [kind for kind, pictures in KINDS.items()
            if has_videos or all(picture.seconds is None for picture in pictures)]


def make_row(cfg: ModelConfig, kind: str) -> Row:
    """Words, then each picture between its marks, then words."""
    rng = np.random.default_rng(zlib.crc32(kind.encode()))
    merge, side = cfg.vision.spatial_merge_size, max(2, cfg.vision.window_units)
    words = min(WORDS, cfg.image_token_id)
    start, end = ([] if mark is None else [mark]
                  for mark in (cfg.vision_start_token_id, cfg.vision_end_token_id))
    tokens, grids = list(rng.integers(0, words, 7)), []
    for picture in KINDS[kind]:
        units = (picture.frames, side + picture.rows, side + picture.columns)
        if isinstance(cfg.vision, ClipConfig):
            units = (1, side, side)     # the only size
        grids.append((units[0], units[1] * merge, units[2] * merge))
        mark = cfg.image_token_id if picture.seconds is None else cfg.video_token_id
        tokens += [*start, *[mark] * math.prod(units), *end, *rng.integers(0, words, 3)]
    tokens += list(rng.integers(0, words, 4))
    count = sum(math.prod(grid) for grid in grids)
    patches = rng.standard_normal((count, cfg.vision.patch_dim)).astype(np.float32)
    seconds = tuple(p.seconds for p in KINDS[kind] if p.seconds is not None)
    return Row(np.asarray(tokens, np.int32), grids, patches if grids else None, seconds)


def make_rows(cfg: ModelConfig) -> list[Row]:
    """One row of every kind that the family knows."""
    return [make_row(cfg, kind) for kind in kinds_of(cfg)]


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
GRADIENT_SHAPES = ("odd, tied", "Qwen2-VL 2B", "LLaVA 1.5 7B")
GREEDY_SHAPES = ("odd, untied", "Qwen2-VL 2B", "LLaVA 1.5 7B")
BF16_SHAPES = ("3B",)


def some_tokens(row: Row) -> np.ndarray:
    """[6] int: tokens of a row whose logits are stored, the last among them."""
    return np.linspace(0, len(row.tokens) - 1, 6).astype(int)
