"""The two models and their prompts: what both sides are given."""

from __future__ import annotations

import dataclasses
import pathlib
import tempfile

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

import guardjax
import guardjax.models as models
from guardjax import layout
from guardjax.models import turned
from guardjax.models.config import ModelConfig, TextConfig, VisionConfig
from guardjax.models.init import Params, param_shapes
from guardjax.types import PromptBatch, Segment

BASE = pathlib.Path(guardjax.__file__).parent / "assets" / "base"


@dataclasses.dataclass(frozen=True)
class Model:
    """A model, prompts of `prompt` tokens and answers of `tokens`; its bar if it has a peer.

    Each prompt has one picture of `side` x `side` patches. `read` are the parameters as a guard
    reads them from a directory, which on a CPU are turned; None where they are `params`.
    """

    name: str
    cfg: ModelConfig
    params: Params
    prompt: int
    tokens: int
    decode_bar: float | None = None     # times as fast as the peer
    side: int = 8
    read: Params | None = None

    @property
    def ours(self) -> Params:
        """What our side computes with."""
        return self.params if self.read is None else self.read


def tiny() -> Model:
    """The base that is shipped."""
    cfg, params = models.load_hf(BASE)
    return Model("tiny", cfg, jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), params),
                 prompt=96, tokens=33, decode_bar=3.0)


def hundred_million() -> Model:
    """104 million random parameters, of which the decoder reads 350 MB a token: no cache holds it.
    """
    cfg = ModelConfig(
        VisionConfig(depth=4, hidden_size=512, intermediate_size=1024, num_heads=8,
                     out_hidden_size=768, fullatt_block_indexes=(1, 3)),
        TextConfig(vocab_size=16384, hidden_size=768, intermediate_size=2048, num_hidden_layers=12,
                   num_attention_heads=12, num_key_value_heads=4, mrope_section=(8, 12, 12)),
        image_token_id=16370, video_token_id=16371, vision_start_token_id=16372,
        vision_end_token_id=16373, tie_word_embeddings=True)
    rng = np.random.default_rng(0)
    flat = {}
    for path, leaf in flax.traverse_util.flatten_dict(param_shapes(cfg)).items():
        drawn = rng.standard_normal(leaf.shape, np.float32) * np.float32(0.02)
        flat[path] = jnp.asarray(drawn + 1 if path[-1] == "scale" else drawn)
    params = flax.traverse_util.unflatten_dict(flat)
    with tempfile.TemporaryDirectory() as folder:
        models.save_hf(params, cfg, f"{folder}/model")
        _, read = models.load_hf(f"{folder}/model", turned=turned.helps(cfg.dtype))
    return Model("100m", cfg, params, prompt=64, tokens=9, decode_bar=1.3, read=read)


@dataclasses.dataclass(frozen=True)
class Row:
    """One prompt as a processor gives it: a picture, then words. No row is padded."""

    tokens: np.ndarray                  # [P] int64
    grid: tuple[int, int, int]          # frames, rows and columns of patches
    patches: np.ndarray                 # [N, patch_dim] float32, in the processor's order


def make_rows(model: Model, batch: int) -> list[Row]:
    """`batch` random prompts."""
    rng, cfg = np.random.default_rng(0), model.cfg
    units = (model.side // cfg.vision.spatial_merge_size) ** 2
    picture = [cfg.vision_start_token_id, *[cfg.image_token_id] * units, cfg.vision_end_token_id]
    rows = []
    for _ in range(batch):
        words = rng.integers(0, 256, model.prompt - len(picture))
        patches = rng.standard_normal((model.side**2, cfg.vision.patch_dim)).astype(np.float32)
        tokens = np.concatenate([words[:4], picture, words[4:]])
        rows.append(Row(tokens, (1, model.side, model.side), patches))
    return rows


def prompt_batch(cfg: ModelConfig, rows: list[Row]) -> PromptBatch:
    """The rows as our model takes them: what the peer works out inside its forward pass."""
    layouts = [layout.vision_layout([row.grid], window_units=cfg.vision.window_units,
                                    merge=cfg.vision.spatial_merge_size) for row in rows]
    places = [layout.mrope_positions(row.tokens, [row.grid], image_token_id=cfg.image_token_id,
                                     merge=cfg.vision.spatial_merge_size) for row in rows]
    index = [layout.feature_index(row.tokens, vision, image_token_id=cfg.image_token_id)
             for row, vision in zip(rows, layouts)]
    tokens = np.stack([row.tokens for row in rows]).astype(np.int32)
    prompt = Segment(tokens, np.stack([positions for positions, _ in places]).astype(np.int32),
                     np.ones(tokens.shape, bool), np.stack(index).astype(np.int32))
    vision = layout.pack_vision(layouts, [row.patches for row in rows], layouts[0].num_slots,
                                cfg.vision.patch_dim)
    return PromptBatch(prompt, np.asarray([end for _, end in places], np.int32), vision)
