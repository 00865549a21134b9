"""From examples to the padded arrays that the device sees, in a bounded number of shapes."""

from __future__ import annotations

import dataclasses
import functools
import json
import pathlib
from collections.abc import Sequence

import numpy as np

from guardjax import layout
from guardjax.data.images import MEAN, STD, PatchSpec, to_patches
from guardjax.data.prompts import PromptError, encode_prompt
from guardjax.data.tokenizer import Tokenizer, load_tokenizer
from guardjax.types import PolicyExample, PromptBatch, Segment

PROCESSOR_FILE = "preprocessor_config.json"
PROMPT_BUCKETS = (48, 64, 80, 96, 128, 192, 256, 512)
PATCH_BUCKETS = (64, 256, 1024, 4096)
ANSWER_BUCKETS = (12, 24, 48, 64, 96)


@dataclasses.dataclass(frozen=True)
class Batcher:
    """Turns examples of one model's world into arrays.

    Attributes:
      tokenizer: the model's.
      patches: how pictures are cut.
      window_units: merged units along a window's side (`VisionConfig.window_units`).
      prompt_buckets, patch_buckets, answer_buckets: the only lengths that occur, ascending. The
        number of compiled programs is bounded by their combinations.
    """

    tokenizer: Tokenizer
    patches: PatchSpec
    window_units: int
    prompt_buckets: tuple[int, ...] = PROMPT_BUCKETS
    patch_buckets: tuple[int, ...] = PATCH_BUCKETS
    answer_buckets: tuple[int, ...] = ANSWER_BUCKETS

    def prompts(self, examples: Sequence[PolicyExample]) -> PromptBatch:
        """B padded prompts. Without any picture among them, `vision` is None.

        Raises:
          PromptError: a prompt longer than the largest bucket; nothing is truncated.
        """
        encoded = [self._encode(example) for example in examples]
        length = layout.bucket(max(len(ids) for ids, *_ in encoded), self.prompt_buckets)
        batch = len(examples)
        tokens = np.full((batch, length), self.tokenizer.pad_id, np.int32)
        positions = np.zeros((batch, length, 3), np.int32)
        mask = np.zeros((batch, length), bool)
        features = np.full((batch, length), -1, np.int32)
        next_pos = np.zeros(batch, np.int32)
        for row, (ids, vision, _) in enumerate(encoded):
            num = len(ids)
            tokens[row, :num], mask[row, :num] = ids, True
            positions[row, :num], next_pos[row] = layout.mrope_positions(
                ids, vision.grids, image_token_id=self.tokenizer.image_pad_id,
                merge=self.patches.merge_size)
            features[row, :num] = layout.feature_index(
                ids, vision, image_token_id=self.tokenizer.image_pad_id)
        pictures = None
        if any(example.image is not None for example in examples):
            slots = layout.bucket(max(v.num_slots for _, v, _ in encoded), self.patch_buckets)
            spec = self.patches
            pictures = layout.pack_vision(
                [v for _, v, _ in encoded], [flat for *_, flat in encoded], slots,
                3 * spec.temporal_patch_size * spec.patch_size**2)
        index = None if pictures is None else features
        return PromptBatch(Segment(tokens, positions, mask, index), next_pos, pictures)

    def answers(self, texts: Sequence[Sequence[str]]) -> tuple[np.ndarray, np.ndarray]:
        """Given answers as tokens [B, G, T] int32 and length [B, G], end token included.

        An answer of None-like emptiness ("") has length 0 and no end token: a filler.

        Raises:
          PromptError: an answer longer than the largest bucket.
        """
        rows = [[self._answer_ids(text) for text in group] for group in texts]
        longest = max(len(ids) for group in rows for ids in group)
        if longest > self.answer_buckets[-1]:
            raise PromptError(
                f"an answer has {longest} tokens and the limit is {self.answer_buckets[-1]}; "
                "shorten it or add an answer bucket"
            )
        size = layout.bucket(longest, self.answer_buckets)
        tokens = np.full((len(rows), len(rows[0]), size), self.tokenizer.pad_id, np.int32)
        length = np.zeros(tokens.shape[:2], np.int32)
        for b, group in enumerate(rows):
            for g, ids in enumerate(group):
                tokens[b, g, : len(ids)], length[b, g] = ids, len(ids)
        return tokens, length

    def _answer_ids(self, text: str) -> list[int]:
        return [*self.tokenizer.untrusted(text), self.tokenizer.end_id] if text else []

    def _encode(
        self, example: PolicyExample
    ) -> tuple[np.ndarray, layout.VisionLayout, np.ndarray | None]:
        if example.image is None:
            flat, grids = None, ()
        else:
            flat, grid = to_patches(example.image, self.patches)
            grids = (grid,)
        vision = _layout(grids, self.window_units, self.patches.merge_size)
        prompt = encode_prompt(
            self.tokenizer, example, len(vision.unit_index), self.prompt_buckets[-1])
        return np.asarray(prompt.ids, np.int32), vision, flat


def load_batcher(path: str | pathlib.Path) -> Batcher:
    """The batcher of a model directory: tokenizer, `preprocessor_config.json`, window size.

    Raises:
      TokenizerError, FileNotFoundError: the directory is not a whole model directory.
    """
    path = pathlib.Path(path)
    vision = json.loads((path / "config.json").read_text())["vision_config"]
    size = json.loads((path / PROCESSOR_FILE).read_text())
    patches = PatchSpec(
        patch_size=size["patch_size"], temporal_patch_size=size["temporal_patch_size"],
        merge_size=size["merge_size"], min_pixels=size["min_pixels"],
        max_pixels=size["max_pixels"],
    )
    return Batcher(load_tokenizer(path), patches, vision["window_size"] // patches.unit)


def save_batcher(batcher: Batcher, path: str | pathlib.Path) -> None:
    """Writes tokenizer and processor files as Hugging Face names them."""
    path = pathlib.Path(path)
    path.mkdir(parents=True, exist_ok=True)
    batcher.tokenizer.save(path)
    config = dataclasses.asdict(batcher.patches) | {
        "image_processor_type": "Qwen2VLImageProcessor", "do_resize": True, "do_rescale": True,
        "do_normalize": True, "do_convert_rgb": True, "resample": 3,
        "image_mean": MEAN.tolist(), "image_std": STD.tolist(),
    }
    (path / PROCESSOR_FILE).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


@functools.lru_cache(maxsize=1024)
def _layout(grids: tuple[layout.Grid, ...], window_units: int, merge: int) -> layout.VisionLayout:
    return layout.vision_layout(grids, window_units=window_units, merge=merge)
