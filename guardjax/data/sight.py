"""Endless scenes with the word that every image token should mean, for the stage `sight`."""

from __future__ import annotations

import dataclasses

import numpy as np

from guardjax import layout
from guardjax.data.batching import Batcher
from guardjax.data.images import to_patches
from guardjax.types import VisionInputs
from guardjax.world.scene import SceneSpec, cover, render, sample_scene


@dataclasses.dataclass(frozen=True)
class SightBatch:
    """B pictures and the word of each of their image features."""

    vision: VisionInputs
    word_ids: np.ndarray    # [B, U] int32
    light_ids: np.ndarray   # [B, U] int32, the light on the background; `word_ids` on objects
    weights: np.ndarray     # [B, U] float32; 1 on objects, `empty_weight` where none is


class SightSource:
    """Batch `i` holds scenes `i * batch ...` of the training split; nothing is stored."""

    def __init__(
        self, batcher: Batcher, *, batch: int, num_batches: int, seed: int,
        spec: SceneSpec = SceneSpec(), empty_weight: float = 0.3, rows: slice = slice(None),
    ) -> None:
        """`rows` are those of each batch that are made, for a process that needs no others."""
        self._batcher, self._batch, self._num, self._seed = batcher, batch, num_batches, seed
        self._spec, self._empty_weight = spec, empty_weight
        self._rows = range(batch)[rows]
        size = spec.image_size // batcher.patches.patch_size
        self._layout = layout.vision_layout(
            [(1, size, size)], window_units=batcher.window_units, merge=batcher.patches.merge_size)
        self._word_ids: dict[str, int] = {}

    def __len__(self) -> int:
        return self._num

    def __getitem__(self, index: int) -> SightBatch:
        first = self._seed * 2**31 + int(index) * self._batch
        scenes = [sample_scene(first + i, self._spec) for i in self._rows]
        flat = [to_patches(render(scene), self._batcher.patches)[0] for scene in scenes]
        vision = layout.pack_vision(
            [self._layout] * len(scenes), flat, self._layout.num_slots, flat[0].shape[1])
        units = self._layout.num_slots // self._layout.merge**2
        words = np.zeros((len(scenes), units), np.int32)
        lights = np.zeros((len(scenes), units), np.int32)
        weights = np.zeros((len(scenes), units), np.float32)
        for row, scene in enumerate(scenes):
            names = cover(scene, self._batcher.patches.unit).reshape(-1)
            for name, slot in zip(names, self._layout.unit_index, strict=True):
                words[row, slot] = self._word(str(name) or scene.place)
                lights[row, slot] = self._word(str(name) or scene.light)
                weights[row, slot] = 1.0 if name else self._empty_weight
        return SightBatch(vision, words, lights, weights)

    def _word(self, name: str) -> int:
        if name not in self._word_ids:
            self._word_ids[name] = self._batcher.tokenizer.word_id(name)
        return self._word_ids[name]
