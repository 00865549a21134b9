"""From examples to the padded arrays that the device sees, in a bounded number of shapes."""

from __future__ import annotations

import dataclasses
import functools
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from guardjax import layout
from guardjax.data.images import MAX_ASPECT, PatchSpec, patch_grid, to_patches
from guardjax.data.processor import ProcessorError, load_processor, save_processor
from guardjax.data.prompts import PromptError, encode_prompt
from guardjax.data.tokenizer import IMAGE_PAD, Tokenizer, TokenizerError, load_tokenizer
from guardjax.json_file import read_json
from guardjax.types import PolicyExample, PromptBatch, Segment

PROMPT_BUCKETS = (48, 64, 80, 96, 128, 192, 256, 512)
PATCH_BUCKETS = (64, 256, 1024, 4096)
ANSWER_BUCKETS = (12, 24, 48, 64, 96)
# By `model_type`, pixels of a window where a config leaves `window_size` out; 0 is no windows.
DEFAULT_WINDOW = {"qwen2_5_vl": 112, "qwen2_vl": 0}


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

    def prompts(self, examples: Sequence[PolicyExample], rows: slice = slice(None)) -> PromptBatch:
        """B padded prompts. Without any picture among them, `vision` is None.

        With `rows`, those of them alone, in the shapes of the whole batch: so processes that make
        a part each agree on the shapes without a word. Other rows' pictures are not cut.

        Raises:
          PromptError: a prompt longer than the largest bucket; nothing is truncated.
        """
        here = range(*rows.indices(len(examples)))
        encoded = [self._encode(example, cut=i in here) for i, example in enumerate(examples)]
        length = layout.bucket(max(len(ids) for ids, *_ in encoded), self.prompt_buckets)
        slots = layout.bucket(max(v.num_slots for _, v, _ in encoded), self.patch_buckets)
        with_pictures = any(example.image is not None for example in examples)
        encoded, batch = encoded[rows], len(here)
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
        if with_pictures:
            pictures = layout.pack_vision(
                [v for _, v, _ in encoded], [flat for *_, flat in encoded], slots,
                self.patches.patch_dim)
        index = None if pictures is None else features
        return PromptBatch(Segment(tokens, positions, mask, index), next_pos, pictures)

    def answers(self, texts: Sequence[Sequence[str]], rows: slice = slice(None),
                ) -> tuple[np.ndarray, np.ndarray]:
        """Given answers as tokens [B, G, T] int32 and length [B, G], end token included.

        `rows` as in `prompts`.

        An answer of None-like emptiness ("") has length 0 and no end token: a filler.

        Raises:
          PromptError: an answer longer than the largest bucket.
        """
        encoded = [[self._answer_ids(text) for text in group] for group in texts]
        longest = max(len(ids) for group in encoded for ids in group)
        if longest > self.answer_buckets[-1]:
            raise PromptError(
                f"an answer has {longest} tokens and the limit is {self.answer_buckets[-1]}; "
                "shorten it or add an answer bucket"
            )
        size = layout.bucket(longest, self.answer_buckets)
        encoded = encoded[rows]
        tokens = np.full((len(encoded), len(encoded[0]), size), self.tokenizer.pad_id, np.int32)
        length = np.zeros(tokens.shape[:2], np.int32)
        for b, group in enumerate(encoded):
            for g, ids in enumerate(group):
                tokens[b, g, : len(ids)], length[b, g] = ids, len(ids)
        return tokens, length

    def _answer_ids(self, text: str) -> list[int]:
        return [*self.tokenizer.untrusted(text), self.tokenizer.end_id] if text else []

    def _encode(
        self, example: PolicyExample, cut: bool
    ) -> tuple[np.ndarray, layout.VisionLayout, np.ndarray | None]:
        flat, grids = None, ()
        if example.image is not None:
            if cut:
                flat, grid = to_patches(example.image, self.patches)
            else:
                grid = patch_grid(example.image, self.patches)
            grids = (grid,)
        vision = _layout(grids, self.window_units, self.patches.merge_size)
        prompt = encode_prompt(
            self.tokenizer, example, len(vision.unit_index), self.prompt_buckets[-1])
        return np.asarray(prompt.ids, np.int32), vision, flat


def load_batcher(path: str | pathlib.Path) -> Batcher:
    """The batcher of a model directory: tokenizer, processor, window size.

    Raises:
      TokenizerError, ProcessorError, FileNotFoundError: the directory is not a whole model
        directory, or its parts are of different models.
    """
    path = pathlib.Path(path)
    config = _read_config(path)
    patches = load_processor(path)
    vision = config["vision_config"]
    for ours, theirs in (("patch_size", "patch_size"), ("merge_size", "spatial_merge_size"),
                         ("temporal_patch_size", "temporal_patch_size")):
        wanted = vision.get(theirs, getattr(PatchSpec, ours))
        if getattr(patches, ours) != wanted:
            raise ProcessorError(f"{path}: the processor has {ours} {getattr(patches, ours)} and "
                                 f"the model {theirs} {wanted}; they are not of one model")
    tokenizer = load_tokenizer(path)
    _check_fits(tokenizer, config, path)
    window = vision.get("window_size", DEFAULT_WINDOW[config["model_type"]])
    window_units = max(1, window // patches.unit)
    return Batcher(tokenizer, patches, window_units, *buckets_for(patches, window_units))


def buckets_for(patches: PatchSpec, window_units: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(prompt buckets, patch buckets) that hold every picture that `patches` can make.

    Those of small pictures are the module's; larger ones follow by doubling and by fours.
    """
    units = patches.max_pixels // patches.unit**2
    prompt, patch = list(PROMPT_BUCKETS), list(PATCH_BUCKETS)
    while prompt[-1] < units + PROMPT_BUCKETS[-1] // 2:
        prompt.append(2 * prompt[-1])
    # Of r x c units, windows of side w fill at most (r + w - 1) x (c + w - 1) places. A grid is
    # widest where its sides differ most: by half as much again as MAX_ASPECT, since rounding takes
    # a side of almost 1.5 units for one. Where small pictures grow, each side may be one more.
    longest = math.ceil(math.sqrt(1.5 * units * MAX_ASPECT))
    spare = window_units * (longest + units // longest + 1) + window_units**2
    while patch[-1] < (units + spare) * patches.merge_size**2:
        patch.append(4 * patch[-1])
    return tuple(prompt), tuple(patch)


def save_batcher(batcher: Batcher, path: str | pathlib.Path) -> None:
    """Writes tokenizer and processor files as Hugging Face names them."""
    path = pathlib.Path(path)
    path.mkdir(parents=True, exist_ok=True)
    batcher.tokenizer.save(path)
    save_processor(batcher.patches, path)


def _read_config(path: pathlib.Path) -> dict[str, Any]:
    """The model's `config.json`, as far as a batcher needs it."""
    file = path / "config.json"
    config = read_json(file, ProcessorError)
    if not isinstance(config.get("vision_config"), dict):
        raise ProcessorError(f"{file} is no config of a model with pictures: it has no object "
                             "vision_config")
    if config.get("model_type") not in DEFAULT_WINDOW:
        raise ProcessorError(f"{file}: model_type is {config.get('model_type')!r}; prompts can be "
                             f"made for {' and '.join(DEFAULT_WINDOW)} only")
    return config


def _check_fits(tokenizer: Tokenizer, config: Mapping[str, Any], path: pathlib.Path) -> None:
    """That every id the tokenizer gives means to the model what it means to the tokenizer."""
    rows = (config.get("text_config") or config).get("vocab_size")
    highest = max(tokenizer.inner.get_vocab().values())
    if rows is not None and highest >= rows:
        raise TokenizerError(
            f"{path}: the tokenizer gives ids up to {highest} and the model's embedding has "
            f"{rows} rows (vocab_size); take the tokenizer of the model's own release")
    wanted = config.get("image_token_id")
    if wanted is not None and tokenizer.image_pad_id != wanted:
        raise TokenizerError(
            f"{path}: {IMAGE_PAD} is {tokenizer.image_pad_id} in the tokenizer and {wanted} in "
            "config.json (image_token_id); take the tokenizer of the model's own release")


@functools.lru_cache(maxsize=1024)
def _layout(grids: tuple[layout.Grid, ...], window_units: int, merge: int) -> layout.VisionLayout:
    return layout.vision_layout(grids, window_units=window_units, merge=merge)
