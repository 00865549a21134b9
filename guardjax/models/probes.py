"""Fixed inputs that any checkpoint of a shape can be asked, to tell whether two models are one.

A probe follows from the config alone: words, one picture whose windows do not divide, and two
pictures of other shapes. Sizes are counted in windows, so that small models are asked as hard
questions as large ones.
"""

from __future__ import annotations

import dataclasses
import functools
import zlib

import jax
import numpy as np

from guardjax.layout import Grid, feature_index, pack_vision, vision_layout
from guardjax.models.config import ClipConfig, ModelConfig
from guardjax.models.positions import prompt_positions
from guardjax.models.qwen2_5_vl import Params, encode_images, forward, unembed
from guardjax.types import Segment, VisionInputs

_NUM_WORDS = 12     # before, between and after the pictures


@dataclasses.dataclass(frozen=True)
class Probe:
    """One prompt.

    Attributes:
      name: says what it asks.
      tokens: [T] int32, image placeholders among them.
      grids: (frames, rows, columns) in patches of each picture.
      patches: [N, patch_dim] float32 of all pictures in processor order; None without any.
    """

    name: str
    tokens: np.ndarray
    grids: tuple[Grid, ...]
    patches: np.ndarray | None


def make_probes(cfg: ModelConfig) -> tuple[Probe, ...]:
    """The probes of a config, the same for ever."""
    merge, window = cfg.vision.spatial_merge_size, cfg.vision.window_units

    def grid(rows: int, columns: int) -> Grid:
        if isinstance(cfg.vision, ClipConfig):
            return 1, window, window        # the only size
        return 1, rows * merge, columns * merge

    return (_probe(cfg, "words", ()),
            _probe(cfg, "a picture", (grid(window + 1, window + 2),)),
            _probe(cfg, "two pictures", (grid(1, window + 1), grid(window, 1))))


def probe_logits(params: Params, cfg: ModelConfig, probe: Probe) -> np.ndarray:
    """Logits [T, V] float32 of a probe, computed in `cfg.dtype`."""
    layout = vision_layout(probe.grids, window_units=cfg.vision.window_units,
                           merge=cfg.vision.spatial_merge_size)
    positions, _ = prompt_positions(cfg, probe.tokens, probe.grids)
    index, vision = None, None
    if probe.patches is not None:
        index = feature_index(probe.tokens, layout, image_token_id=cfg.image_token_id)[None]
        vision = pack_vision([layout], [probe.patches], layout.num_slots, cfg.vision.patch_dim)
    tokens = probe.tokens[None]
    segment = Segment(tokens, positions[None], np.ones(tokens.shape, bool), index)
    return np.asarray(_logits(params, cfg, segment, vision)[0], np.float32)


@functools.partial(jax.jit, static_argnums=1)
def _logits(params: Params, cfg: ModelConfig, segment: Segment,
            vision: VisionInputs | None) -> jax.Array:
    features = None if vision is None else encode_images(params, cfg, vision)
    (hidden,), _ = forward(params, cfg, [segment], features)
    return unembed(params, cfg, hidden)


def _probe(cfg: ModelConfig, name: str, grids: tuple[Grid, ...]) -> Probe:
    # Of NumPy's generators only this one promises the same numbers in every release.
    rng = np.random.RandomState(zlib.crc32(name.encode()) & 0x7FFFFFFF)
    start, end = ([] if mark is None else [mark]
                  for mark in (cfg.vision_start_token_id, cfg.vision_end_token_id))
    marks = [cfg.image_token_id, *start, *end]
    marks += [] if cfg.video_token_id is None else [cfg.video_token_id]
    words = max(1, min(cfg.text.vocab_size, *marks))

    def some_words() -> list[int]:
        return rng.randint(0, words, _NUM_WORDS).tolist()

    tokens = some_words()
    for time, rows, columns in grids:
        units = time * rows * columns // cfg.vision.spatial_merge_size**2
        tokens += [*start, *[cfg.image_token_id] * units, *end, *some_words()]
    count = sum(time * rows * columns for time, rows, columns in grids)
    # Levels as of pixels, normalised to about one.
    levels = rng.randint(0, 256, (count, cfg.vision.patch_dim))
    patches = ((levels - 127.5) / 64).astype(np.float32) if grids else None
    return Probe(name, np.asarray(tokens, np.int32), grids, patches)
