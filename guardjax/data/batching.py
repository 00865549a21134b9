"""From examples to the padded arrays that the device sees, in a bounded number of shapes."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from guardjax import layout
from guardjax.data.images import PatchSpec, patch_grid, to_patches
from guardjax.data.lengths import (
    ANSWER_BUCKETS,
    ANSWER_LIMIT,
    PATCH_BUCKETS,
    PROMPT_BUCKETS,
    KeptLengths,
    buckets_for,
    load_lengths,
    save_lengths,
    way_out,
)
from guardjax.data.processor import ProcessorError, load_processor, save_processor
from guardjax.data.prompts import IMAGE_FIRST, PromptError, check_template, encode_prompt
from guardjax.data.tokenizer import IMAGE_PAD, Tokenizer, TokenizerError, load_tokenizer
from guardjax.json_file import read_json, write_json
from guardjax.types import PolicyExample, PromptBatch, Segment, VisionInputs

TEMPLATE_FILE = "prompt_template.json"
# By `model_type`, pixels of a window where a config leaves `window_size` out; 0 is no windows.
DEFAULT_WINDOW = {"qwen2_5_vl": 112, "qwen2_vl": 0}


class EncodedPrompt(NamedTuple):
    """One prompt, or a part of it, before it is padded."""

    ids: np.ndarray             # [T] int32
    positions: np.ndarray       # [T, 3] int32
    features: np.ndarray        # [T] int32, slot of the picture's feature; -1 is text
    next_pos: int               # position of the first answer token
    trunk: int                  # so many of `ids` are its picture's alone, or its policy's
    vision: layout.VisionLayout
    patches: np.ndarray | None  # [patches, patch_dim]; None without a picture


@dataclasses.dataclass(frozen=True)
class Batcher:
    """Turns examples of one model's world into arrays.

    Attributes:
      tokenizer: the model's.
      patches: how pictures are cut.
      window_units: merged units along a window's side (`VisionConfig.window_units`).
      prompt_buckets, patch_buckets, answer_buckets: the only lengths that occur, ascending. The
        number of compiled programs is bounded by their combinations.
      answer_limit: tokens that a guard of this model may write.
      template: the order of picture and policy that the model was trained with (`prompts.py`).
    """

    tokenizer: Tokenizer
    patches: PatchSpec
    window_units: int
    prompt_buckets: tuple[int, ...] = PROMPT_BUCKETS
    patch_buckets: tuple[int, ...] = PATCH_BUCKETS
    answer_buckets: tuple[int, ...] = ANSWER_BUCKETS
    answer_limit: int = ANSWER_LIMIT
    template: str = IMAGE_FIRST

    def prompts(self, examples: Sequence[PolicyExample], rows: slice = slice(None), *,
                begun: Sequence[int] = ()) -> PromptBatch:
        """B padded prompts. Without any picture among them, `vision` is None.

        With `rows`, those of them alone, in the shapes of the whole batch: so processes that make
        a part each agree on the shapes without a word. Other rows' pictures are not cut. `begun`
        are ids that every answer is made to begin with.

        Raises:
          PromptError: a prompt longer than the largest bucket; nothing is truncated.
        """
        encoded = self.encode(examples, begun, rows)
        length = layout.bucket(max(len(prompt.ids) for prompt in encoded), self.prompt_buckets)
        vision = self.pack(encoded, rows)
        next_pos = np.array([prompt.next_pos for prompt in encoded[rows]], np.int32)
        return PromptBatch(self.pad(encoded[rows], length, vision is not None), next_pos, vision)

    def encode(self, examples: Sequence[PolicyExample], begun: Sequence[int] = (),
               rows: slice = slice(None)) -> list[EncodedPrompt]:
        """Prompts one by one; a picture that several show is cut into patches once.

        Pictures of other rows than `rows` are not cut: those prompts have no patches.
        """
        cut: dict[int, tuple[np.ndarray, layout.Grid]] = {}
        here = range(*rows.indices(len(examples)))
        return [self._encode(example, cut if i in here else None, begun)
                for i, example in enumerate(examples)]

    def pad(self, parts: Sequence[EncodedPrompt], length: int,
            pictured: bool | None = None) -> Segment:
        """Prompts, or parts of them, as a segment [len(parts), length].

        `pictured` says whether it has an index of features; by default where one is shown.
        """
        shape = (len(parts), length)
        tokens = np.full(shape, self.tokenizer.pad_id, np.int32)
        positions, mask = np.zeros((*shape, 3), np.int32), np.zeros(shape, bool)
        features = np.full(shape, -1, np.int32)
        for row, part in enumerate(parts):
            num = len(part.ids)
            tokens[row, :num], mask[row, :num] = part.ids, True
            positions[row, :num], features[row, :num] = part.positions, part.features
        pictured = bool((features >= 0).any()) if pictured is None else pictured
        return Segment(tokens, positions, mask, features if pictured else None)

    def pack(self, encoded: Sequence[EncodedPrompt], rows: slice = slice(None)
             ) -> VisionInputs | None:
        """Patches of each prompt's picture, of `rows` alone; None where no prompt has one."""
        if not any(prompt.vision.grids for prompt in encoded):
            return None
        slots = layout.bucket(max(p.vision.num_slots for p in encoded), self.patch_buckets)
        return layout.pack_vision(
            [p.vision for p in encoded[rows]], [p.patches for p in encoded[rows]], slots,
            self.patches.patch_dim)

    def answers(self, texts: Sequence[Sequence[str]], rows: slice = slice(None), *,
                ids: Sequence[str] = ()) -> tuple[np.ndarray, np.ndarray]:
        """Given answers as tokens [B, G, T] int32 and length [B, G], end token included.

        `rows` as in `prompts`; `ids` [B] of the examples, which errors name.

        An answer of None-like emptiness ("") has length 0 and no end token: a filler.

        Raises:
          PromptError: an answer longer than the largest bucket.
        """
        encoded = [[self._answer_ids(text) for text in group] for group in texts]
        longest = [max(map(len, group)) for group in encoded]
        self._check_answers(longest, ids)
        size = layout.bucket(max(longest), self.answer_buckets)
        encoded = encoded[rows]
        tokens = np.full((len(encoded), len(encoded[0]), size), self.tokenizer.pad_id, np.int32)
        length = np.zeros(tokens.shape[:2], np.int32)
        for b, group in enumerate(encoded):
            for g, answer in enumerate(group):
                tokens[b, g, : len(answer)], length[b, g] = answer, len(answer)
        return tokens, length

    def check_answers(self, examples: Sequence[PolicyExample]) -> None:
        """Checks that the answers of all examples fit, before any of them is asked for.

        Raises:
          PromptError: names the longest.
        """
        self._check_answers([len(self._answer_ids(example.answer)) for example in examples],
                            [example.example_id for example in examples])

    def _check_answers(self, lengths: Sequence[int], ids: Sequence[str]) -> None:
        longest = max(lengths, default=0)
        if longest > self.answer_buckets[-1]:
            row = lengths.index(longest)
            raise PromptError(
                f"example {ids[row] if ids and ids[row] else '(unnamed)'}: its answer has "
                f"{longest} tokens, the end included, and the limit is {self.answer_buckets[-1]}; "
                f"set {way_out('answer', self.answer_buckets, longest)}. Nothing is truncated")

    def _answer_ids(self, text: str) -> list[int]:
        return [*self.tokenizer.untrusted(text), self.tokenizer.end_id] if text else []

    def _encode(
        self, example: PolicyExample, cut: dict[int, tuple[np.ndarray, layout.Grid]] | None,
        begun: Sequence[int],
    ) -> EncodedPrompt:
        """`cut` keeps what became of pictures, by `id`; None cuts none."""
        flat, grids = None, ()
        if example.image is not None:
            if cut is None:
                grid = patch_grid(example.image, self.patches)
            else:
                if id(example.image) not in cut:
                    cut[id(example.image)] = to_patches(example.image, self.patches)
                flat, grid = cut[id(example.image)]
            grids = (grid,)
        vision = _layout(grids, self.window_units, self.patches.merge_size)
        prompt = encode_prompt(
            self.tokenizer, example, len(vision.unit_index), self.prompt_buckets,
            template=self.template, begun=begun)
        ids, image = np.asarray(prompt.ids, np.int32), self.tokenizer.image_pad_id
        positions, next_pos = layout.mrope_positions(
            ids, grids, image_token_id=image, merge=self.patches.merge_size)
        features = layout.feature_index(ids, vision, image_token_id=image)
        return EncodedPrompt(ids, positions, features, next_pos, prompt.trunk, vision, flat)


def load_batcher(path: str | pathlib.Path) -> Batcher:
    """The batcher of a model directory: tokenizer, processor, window size.

    Raises:
      TokenizerError, ProcessorError, LengthsError, FileNotFoundError: the directory is not a whole
        model directory, or its parts are of different models.
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
    kept = load_lengths(path)
    usual, patch_buckets = buckets_for(patches, window_units)
    return Batcher(
        tokenizer, patches, window_units, (*usual, *_beyond(kept.prompt, usual)), patch_buckets,
        (*ANSWER_BUCKETS, *_beyond(kept.answer, ANSWER_BUCKETS)), kept.answer_limit,
        _read_template(path))


def save_batcher(batcher: Batcher, path: str | pathlib.Path) -> None:
    """Writes tokenizer and processor files as Hugging Face names them, template and lengths.

    Of lengths those alone that `load_batcher` would not give without: fewer or smaller ones than
    the usual were a choice of one run, and no reason to refuse a longer prompt later.
    """
    path = pathlib.Path(path)
    path.mkdir(parents=True, exist_ok=True)
    batcher.tokenizer.save(path)
    save_processor(batcher.patches, path)
    usual, _ = buckets_for(batcher.patches, batcher.window_units)
    save_lengths(KeptLengths(
        _beyond(batcher.prompt_buckets, usual), _beyond(batcher.answer_buckets, ANSWER_BUCKETS),
        batcher.answer_limit), path)
    if batcher.template != IMAGE_FIRST:
        write_json(path / TEMPLATE_FILE, {"template": batcher.template})


def _beyond(sizes: Sequence[int], usual: Sequence[int]) -> tuple[int, ...]:
    return tuple(size for size in sizes if size > usual[-1])


def _read_template(path: pathlib.Path) -> str:
    """The template that a model was trained with; a folder without its file says the usual one."""
    file = path / TEMPLATE_FILE
    if not file.is_file():
        return IMAGE_FIRST
    template = read_json(file, PromptError).get("template")
    try:
        check_template(template)
    except PromptError as error:
        raise PromptError(f"{file}: {error}") from error
    return template


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
