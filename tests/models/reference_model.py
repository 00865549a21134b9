"""The reference implementation, on the same seeded weights and rows. Needs torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
import transformers

from guardjax.cli.reference import pictures_of
from guardjax.models.config import ClipConfig, ModelConfig
from guardjax.models.hf_names import hub_name
from tests.models.reference_cases import Row, seeded_tensor

Model = transformers.PreTrainedModel
_IGNORED = -100     # a label that the reference's loss leaves out

torch.set_num_threads(1)    # the models are small: threads would only wait for each other


def build(cfg: ModelConfig, weights: Callable[[str, tuple[int, ...]], np.ndarray] = seeded_tensor,
          dtype: torch.dtype = torch.float32) -> Model:
    """The reference model with the seeded weights.

    As where it loads a checkpoint, `dtype` is that of the parameters; the rotary frequencies stay
    in float32.
    """
    raw = cfg.to_hf()
    hf_cfg = transformers.AutoConfig.for_model(**raw)
    hf_cfg._attn_implementation = "eager"
    model = getattr(transformers, raw["architectures"][0])(hf_cfg).eval().float()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            values = torch.from_numpy(weights(hub_name(cfg, name), tuple(parameter.shape)))
            parameter.data = values.to(dtype)
    model.tie_weights()
    return model


def load(folder) -> Model:
    """The reference model from a directory; refuses missing and unused tensors."""
    model, report = transformers.AutoModelForImageTextToText.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True)
    problems = {kind: names for kind, names in report.items() if names}
    if problems:
        raise ValueError(f"{folder} does not load cleanly: {problems}")
    return model.eval()


def run(model: Model, row: Row) -> tuple[np.ndarray, np.ndarray]:
    """(logits [T, V], M-RoPE ids [T, 3]) of one row, unpadded."""
    logits, positions = run_batch(model, [row])
    return logits[0], positions[0]


def run_batch(model: Model, rows: Sequence[Row], side: str = "right",
              ) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Logits [T, V] and M-RoPE ids [T, 3] of each row, in one batch padded on `side`."""
    inputs = _inputs(model, rows, side)
    model.model.rope_deltas = None
    with torch.no_grad():
        logits = model(**inputs, use_cache=False).logits.float().numpy()
    real = inputs["attention_mask"].numpy().astype(bool)
    return ([one[keep] for one, keep in zip(logits, real)],
            [ids.T[keep] for ids, keep in zip(_positions(model, inputs), real)])


def _positions(model: Model, inputs: dict[str, torch.Tensor]) -> np.ndarray:
    """[B, 3, T] int32."""
    if not hasattr(model.model, "get_rope_index"):
        # Those that it generates with: a plain forward pass counts padding too.
        seen = []
        hook = model.model.language_model.rotary_emb.register_forward_pre_hook(
            lambda module, args, kwargs: seen.append((*args, *kwargs.values())[1]),
            with_kwargs=True)
        model.generate(**inputs, do_sample=False, max_new_tokens=1, pad_token_id=0)
        hook.remove()
        return seen[0].numpy().astype(np.int32)[:, None].repeat(3, axis=1)
    positions, _ = model.model.get_rope_index(**{
        name: inputs.get(name) for name in (
            "input_ids", "mm_token_type_ids", "image_grid_thw", "video_grid_thw",
            "second_per_grid_ts", "attention_mask")})
    return positions.numpy().astype(np.int32).transpose(1, 0, 2)


def gradient(model: Model, rows: Sequence[Row], tokens: np.ndarray, length: np.ndarray,
             ) -> tuple[float, dict[str, np.ndarray]]:
    """(loss, hub name -> gradient) of the mean cross-entropy of answers [B, G, T] to the rows.

    Without the parameters that the loss does not depend on.
    """
    whole, starts = [], []
    for row, answers, lengths in zip(rows, tokens, length):
        for answer, num in zip(answers, lengths):
            starts.append(len(row.tokens))
            whole.append(Row(np.concatenate([row.tokens, answer[:num]]), row.grids, row.patches,
                             row.seconds))
    inputs = _inputs(model, whole, "right")
    labels = torch.where(inputs["attention_mask"] > 0, inputs["input_ids"], _IGNORED)
    for number, start in enumerate(starts):
        labels[number, :start] = _IGNORED
    model.model.rope_deltas = None
    model.zero_grad()
    loss = model(**inputs, labels=labels, use_cache=False).loss
    loss.backward()
    cfg = _config(model)
    return loss.item(), {hub_name(cfg, name): parameter.grad.numpy().copy()
                         for name, parameter in model.named_parameters()
                         if parameter.grad is not None}


def greedy(model: Model, rows: Sequence[Row], max_tokens: int, end_id: int) -> list[list[int]]:
    """The likeliest answer to each row up to and with the end token; prompts padded on the left."""
    inputs = _inputs(model, rows, "left")
    model.model.rope_deltas = None
    found = model.generate(**inputs, do_sample=False, max_new_tokens=max_tokens,
                           eos_token_id=end_id, pad_token_id=end_id)
    answers = found[:, inputs["input_ids"].shape[1]:].tolist()
    return [answer[:answer.index(end_id) + 1] if end_id in answer else answer
            for answer in answers]


def _config(model: Model) -> ModelConfig:
    return ModelConfig.from_hf(model.config.to_dict())


def _inputs(model: Model, rows: Sequence[Row], side: str) -> dict[str, torch.Tensor]:
    """One batch, padded on the right or left."""
    tokens, mask = _padded([row.tokens for row in rows], side)
    inputs, cfg = {"input_ids": tokens, "attention_mask": mask}, _config(model)
    if not isinstance(cfg.vision, ClipConfig):
        return inputs | _qwen_inputs(model.config, inputs, rows)
    patches = [row.patches for row in rows if row.patches is not None]
    if patches:
        inputs["pixel_values"] = torch.from_numpy(pictures_of(cfg, np.concatenate(patches)))
    return inputs


def _qwen_inputs(cfg, inputs: dict[str, torch.Tensor], rows: Sequence[Row],
                 ) -> dict[str, torch.Tensor]:
    """What Qwen's models get besides.

    `mm_token_type_ids` must be passed: without it the reference silently uses plain positions.
    """
    tokens = inputs["input_ids"]
    kinds = torch.where(tokens == cfg.image_token_id, 1, 0)
    kinds = torch.where(tokens == cfg.video_token_id, 2, kinds) * inputs["attention_mask"]
    found = {"mm_token_type_ids": kinds.int()}
    pictures = [one for row in rows for one in _pictures(cfg, row)]
    for token, patches, grid in ((cfg.image_token_id, "pixel_values", "image_grid_thw"),
                                 (cfg.video_token_id, "pixel_values_videos", "video_grid_thw")):
        chosen = [(flat, shape) for kind, flat, shape in pictures if kind == token]
        if chosen:
            found[patches] = torch.from_numpy(np.concatenate([flat for flat, _ in chosen]))
            found[grid] = torch.tensor([shape for _, shape in chosen])
    seconds = [second for row in rows for second in row.seconds]
    if seconds and hasattr(cfg.vision_config, "tokens_per_second"):
        found["second_per_grid_ts"] = torch.tensor(seconds)
    return found


def _padded(rows: Sequence[np.ndarray], side: str) -> tuple[torch.Tensor, torch.Tensor]:
    length = max(len(row) for row in rows)
    tokens = np.zeros((2, len(rows), length), np.int64)
    for number, row in enumerate(rows):
        where = slice(0, len(row)) if side == "right" else slice(length - len(row), length)
        tokens[0, number, where], tokens[1, number, where] = row, 1
    return torch.from_numpy(tokens[0]), torch.from_numpy(tokens[1])


def _pictures(cfg, row: Row) -> list[tuple[int, np.ndarray, tuple[int, int, int]]]:
    """(placeholder id, patches, grid) of each image and video of a row."""
    unit = cfg.vision_config.spatial_merge_size**2
    marks = row.tokens[np.isin(row.tokens, [cfg.image_token_id, cfg.video_token_id])]
    found, patch = [], 0
    for grid in row.grids:
        count = math.prod(grid)
        found.append((int(marks[patch // unit]), row.patches[patch:patch + count], grid))
        patch += count
    return found
