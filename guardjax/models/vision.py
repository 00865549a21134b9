"""The vision tower of Qwen2.5-VL and Qwen2-VL over patches in window order (`guardjax.layout`)."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from guardjax.models.attention import KeyPart, attend_rows, segment_attention
from guardjax.models.clip import ClipTower
from guardjax.models.config import ClipConfig, ModelConfig, Remat, VisionConfig
from guardjax.models.layers import (GatedMLP, LayerNorm, PlainMLP, RMSNorm, in_float32,
                                    inverse_frequencies, quick_gelu, rotate)
from guardjax.models.linear import Linear
from guardjax.models.remat import remat_layer
from guardjax.models.residual import hold, hold_pictures
from guardjax.types import VisionInputs

Array = jax.Array | np.ndarray

# Fixed inside the reference code, not in its configuration.
_NORM_EPS = 1e-6
_NORMS = {"rms": RMSNorm, "layer": LayerNorm}
_exact_gelu = functools.partial(nn.gelu, approximate=False)


def build_tower(cfg: ModelConfig, attention: str) -> nn.Module:
    """The Linen module behind `params["visual"]`.

    Args:
        cfg: of the model.
        attention: a back end, see `models.attention`; pictures of one size do not use it.
    """
    if isinstance(cfg.vision, ClipConfig):
        return ClipTower(cfg.vision, cfg.dtype, cfg.remat)
    return VisionTower(cfg.vision, cfg.dtype, attention, cfg.scan_layers, cfg.remat)


class VisionTower(nn.Module):
    """Patches to one feature per merged unit of patches."""

    cfg: VisionConfig
    dtype: str
    attention: str = "xla"     # a back end, see `models.attention`
    scan: bool = False
    remat: Remat = "none"

    def setup(self) -> None:
        self.patch_embed = Linear(self.cfg.hidden_size, False, self.dtype)
        if self.scan and self.cfg.window_run is not None:
            self.blocks = BlockGroup(self.cfg, self.dtype, self.attention, self.remat)
        else:
            block = remat_layer(VisionBlock, self.remat, scanned=False)
            self.blocks = [block(self.cfg, self.dtype, self.attention)
                           for _ in range(self.cfg.depth)]
        self.merger = PatchMerger(self.cfg, self.dtype)

    def __call__(self, vision: VisionInputs) -> jax.Array:
        """Returns [B, U, D_text]; U is N over the patches of a merged unit.

        Raises:
            ValueError: N is not a whole number of windows, or patches have the wrong length.
        """
        num_patches, patch_dim = vision.patches.shape[-2:]
        if num_patches % self.cfg.window_patches or patch_dim != self.cfg.patch_dim:
            raise ValueError(
                f"patches are {num_patches} x {patch_dim}: expected a multiple of "
                f"{self.cfg.window_patches} patches of length {self.cfg.patch_dim}")
        angles = rotary_angles(self.cfg, vision.hw)
        window_mask, frame_mask = attention_masks(self.cfg, vision.frame)
        x = self.patch_embed(vision.patches.astype(self.dtype))
        if isinstance(self.blocks, BlockGroup):
            groups = len(self.cfg.full_blocks)
            x = _loop(lambda group, x: group(x, angles, window_mask, frame_mask, vision.frame),
                      groups)(self.blocks, x)
            return self._features(x)
        for index, block in enumerate(self.blocks):
            full = index in self.cfg.full_blocks
            x = block(x, angles, frame_mask if full else window_mask,
                      vision.frame if full else None)
        return self._features(x)

    def _features(self, x: Array) -> jax.Array:
        # Split as the text that they are mixed into: gradients come back by the same two steps.
        return hold(self.merger(x))


class BlockGroup(nn.Module):
    """A run of window blocks, as one loop, and the block with full attention that ends it."""

    cfg: VisionConfig
    dtype: str
    attention: str
    remat: Remat

    def setup(self) -> None:
        block = remat_layer(VisionBlock, self.remat, scanned=True)
        if self.cfg.window_run:
            self.window = block(self.cfg, self.dtype, self.attention)
        self.full = block(self.cfg, self.dtype, self.attention)

    def __call__(self, x: Array, angles: tuple[Array, Array], window_mask: Array,
                 frame_mask: Array, frame: Array) -> jax.Array:
        if self.cfg.window_run:
            x = _loop(lambda block, x: block(x, angles, window_mask), self.cfg.window_run)(
                self.window, x)
        return self.full(x, angles, frame_mask, frame)


class VisionBlock(nn.Module):
    """Pre-norm attention and MLP, all with biases."""

    cfg: VisionConfig
    dtype: str
    attention: str = "xla"

    def setup(self) -> None:
        sizes = self.cfg.hidden_size, self.cfg.intermediate_size
        self.norm1 = _NORMS[self.cfg.norm](_NORM_EPS)
        self.norm2 = _NORMS[self.cfg.norm](_NORM_EPS)
        self.attn = VisionAttention(self.cfg, self.dtype, self.attention)
        self.mlp = (GatedMLP(*sizes, True, self.dtype) if self.cfg.mlp == "swiglu" else
                    PlainMLP(*sizes, quick_gelu, self.dtype))

    def __call__(self, x: Array, angles: tuple[Array, Array], mask: Array,
                 frame: Array | None = None) -> jax.Array:
        x = hold_pictures(x + self.attn(self.norm1(x), angles, mask, frame))
        return hold_pictures(x + self.mlp(self.norm2(x)))


class VisionAttention(nn.Module):
    """Bidirectional attention within blocks of consecutive patches.

    The mask's shape says which: [B, windows, 1, W] for windows, [B, 1, N, N] for whole frames,
    which also come as `frame` [B, N]. Windows are always computed by "xla": their scores are
    small, and a window is smaller than a kernel's block.
    """

    cfg: VisionConfig
    dtype: str
    attention: str = "xla"

    def setup(self) -> None:
        self.qkv = Linear(3 * self.cfg.hidden_size, True, self.dtype)
        self.proj = Linear(self.cfg.hidden_size, True, self.dtype)

    def __call__(self, x: Array, angles: tuple[Array, Array], mask: Array,
                 frame: Array | None = None) -> jax.Array:
        batch, num_patches, width = x.shape
        blocks, block = mask.shape[1], mask.shape[-1]
        split = hold_pictures(self.qkv(x)).reshape(
            batch, blocks, block, 3, self.cfg.num_heads, self.cfg.head_dim)
        queries, keys, values = split.transpose(3, 0, 1, 4, 2, 5)    # [B, blocks, heads, block, d]
        cos, sin = (a.reshape(batch, blocks, 1, block, -1) for a in angles)
        queries, keys = rotate(queries, (cos, sin)), rotate(keys, (cos, sin))
        scale = self.cfg.head_dim**-0.5
        if self.attention == "xla" or frame is None:
            out = segment_attention(queries[:, :, :, None], [KeyPart(keys, values, mask)],
                                    scale=scale)[:, :, :, 0]
        else:
            out = attend_rows(queries[:, 0], keys[:, 0], values[:, 0], frame, frame, None,
                              scale=scale, backend=self.attention)[:, None]
        out = out.transpose(0, 1, 3, 2, 4)
        return self.proj(out.reshape(batch, num_patches, width))


class PatchMerger(nn.Module):
    """Joins each merged unit's consecutive patches into one feature of the text width."""

    cfg: VisionConfig
    dtype: str

    def setup(self) -> None:
        self.ln_q = _NORMS[self.cfg.norm](_NORM_EPS)
        self.mlp_0 = Linear(self.cfg.hidden_size * self.cfg.spatial_merge_size**2, True, self.dtype)
        self.mlp_2 = Linear(self.cfg.out_hidden_size, True, self.dtype)

    def __call__(self, x: Array) -> jax.Array:
        unit = self.cfg.spatial_merge_size**2
        x = self.ln_q(x).reshape(x.shape[0], x.shape[1] // unit, unit * x.shape[2])
        return self.mlp_2(in_float32(_exact_gelu, self.mlp_0(x)))


def _loop(step: Callable[[nn.Module, Array], Array], length: int) -> Callable[..., Array]:
    """`step` through a stack of modules: a function of (module with stacked parameters, x)."""
    scan = nn.scan(lambda module, x, _: (step(module, x), None), variable_axes={"params": 0},
                   split_rngs={"params": True}, length=length)
    return lambda module, x: scan(module, x, None)[0]


def rotary_angles(cfg: VisionConfig, hw: Array) -> tuple[jax.Array, jax.Array]:
    """(cos, sin), each [B, N, d / 2] float32: rows turn the first frequencies, columns the rest."""
    frequencies = inverse_frequencies(cfg.head_dim // 2, cfg.rope_theta)
    angles = hw.astype(jnp.float32)[..., None] * frequencies
    angles = angles.reshape(*hw.shape[:-1], -1)
    return jnp.cos(angles), jnp.sin(angles)


def attention_masks(cfg: VisionConfig, frame: Array) -> tuple[jax.Array, jax.Array]:
    """Masks for window blocks [B, windows, 1, W] and for full blocks [B, 1, N, N].

    A window lies in one frame, so there only padding is masked.
    """
    real = frame >= 0
    windows = real.reshape(frame.shape[0], -1, 1, cfg.window_patches)
    same_frame = (frame[:, :, None] == frame[:, None, :]) & real[:, None, :]
    return windows, same_frame[:, None]
