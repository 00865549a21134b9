"""The tower of LLaVA: CLIP or SigLIP over pictures of one size, and the projector behind it.

All pictures have as many patches, so that a picture is a window of `guardjax.layout` without
padding: attention is a reshape, and a picture that is only padding gets features nobody asks for.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from guardjax.models.attention import KeyPart, segment_attention
from guardjax.models.config import Remat
from guardjax.models.layers import LayerNorm, PlainMLP, in_float32, quick_gelu
from guardjax.models.linear import Linear
from guardjax.models.remat import remat_layer
from guardjax.models.tower_config import ClipConfig
from guardjax.types import VisionInputs

Array = jax.Array | np.ndarray

_exact_gelu = functools.partial(nn.gelu, approximate=False)
_ACTIVATIONS = {"quick_gelu": quick_gelu, "gelu": _exact_gelu, "gelu_pytorch_tanh": nn.gelu}


class ClipTower(nn.Module):
    """Patches to one feature per patch. Modules are named as on the hub, misspelt ones too."""

    cfg: ClipConfig
    dtype: str
    remat: Remat = "none"

    def setup(self) -> None:
        self.embeddings = Embeddings(self.cfg, self.dtype)
        if self.cfg.style == "clip":
            self.pre_layrnorm = LayerNorm(self.cfg.eps)
        self.encoder = Encoder(self.cfg, self.dtype, self.remat)
        self.post_layernorm = LayerNorm(self.cfg.eps)
        self.projector = Projector(self.cfg, self.dtype)

    def __call__(self, vision: VisionInputs) -> jax.Array:
        """Returns [B, N, D_text].

        Raises:
            ValueError: N is not a whole number of pictures, or patches have the wrong length.
        """
        batch, num_patches, patch_dim = vision.patches.shape
        if num_patches % self.cfg.window_patches or patch_dim != self.cfg.patch_dim:
            raise ValueError(
                f"patches are {num_patches} x {patch_dim}: expected a multiple of "
                f"{self.cfg.window_patches} patches of length {self.cfg.patch_dim}")
        x = self.embeddings(vision.patches.reshape(batch, -1, self.cfg.window_patches, patch_dim))
        if self.cfg.style == "clip":
            x = self.pre_layrnorm(x)
        x = self.encoder(x)
        if self.is_initializing():
            self.post_layernorm(x)      # stored, and no feature goes through it
        features = self.projector(x[..., -self.cfg.window_patches:, :])
        return features.reshape(batch, num_patches, -1)


class Embeddings(nn.Module):
    """Pictures of patches [B, I, S, P] to [B, I, T, D], T with the class token if there is one."""

    cfg: ClipConfig
    dtype: str

    def setup(self) -> None:
        cfg = self.cfg
        has_class = cfg.style == "clip"
        self.patch_embedding = Linear(cfg.hidden_size, not has_class, self.dtype)
        self.position_embedding = nn.Embed(cfg.window_patches + has_class, cfg.hidden_size,
                                           dtype=self.dtype)
        if has_class:
            self.class_embedding = self.param("class_embedding", nn.initializers.zeros,
                                              (cfg.hidden_size,))

    def __call__(self, patches: Array) -> jax.Array:
        x = self.patch_embedding(patches.astype(self.dtype))
        if self.cfg.style == "clip":
            start = jnp.broadcast_to(self.class_embedding.astype(x.dtype),
                                     (*x.shape[:-2], 1, x.shape[-1]))
            x = jnp.concatenate([start, x], axis=-2)
        return x + self.position_embedding(jnp.arange(x.shape[-2]))


class Encoder(nn.Module):
    """The blocks up to the one whose output the features are."""

    cfg: ClipConfig
    dtype: str
    remat: Remat

    def setup(self) -> None:
        block = remat_layer(ClipBlock, self.remat, scanned=False)
        self.layers = [block(self.cfg, self.dtype) for _ in range(self.cfg.depth)]

    def __call__(self, x: Array) -> jax.Array:
        # The other blocks are in the files, and so in the parameters.
        used = self.cfg.depth if self.is_initializing() else self.cfg.feature_blocks
        for block in self.layers[:used]:
            x = block(x)
        return x


class ClipBlock(nn.Module):
    """Pre-norm attention within a picture, and an MLP."""

    cfg: ClipConfig
    dtype: str

    def setup(self) -> None:
        cfg = self.cfg
        self.layer_norm1 = LayerNorm(cfg.eps)
        self.layer_norm2 = LayerNorm(cfg.eps)
        self.self_attn = ClipAttention(cfg, self.dtype)
        self.mlp = PlainMLP(cfg.hidden_size, cfg.intermediate_size, _ACTIVATIONS[cfg.hidden_act],
                            self.dtype)

    def __call__(self, x: Array) -> jax.Array:
        x = x + self.self_attn(self.layer_norm1(x))
        return x + self.mlp(self.layer_norm2(x))


class ClipAttention(nn.Module):
    """Every token of a picture attends to all of them; x is [B, I, T, D]."""

    cfg: ClipConfig
    dtype: str

    def setup(self) -> None:
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            setattr(self, name, Linear(self.cfg.hidden_size, True, self.dtype))

    def __call__(self, x: Array) -> jax.Array:
        queries, keys, values = (
            project(x).reshape(*x.shape[:-1], self.cfg.num_heads, -1).swapaxes(-2, -3)
            for project in (self.q_proj, self.k_proj, self.v_proj))     # [B, I, heads, T, d]
        everything = jnp.ones((*x.shape[:2], 1, x.shape[-2]), bool)
        out = segment_attention(queries[:, :, :, None], [KeyPart(keys, values, everything)],
                                scale=self.cfg.head_dim**-0.5)[:, :, :, 0]
        return self.out_proj(out.swapaxes(-2, -3).reshape(x.shape))


class Projector(nn.Module):
    """Features to the decoder's width."""

    cfg: ClipConfig
    dtype: str

    def setup(self) -> None:
        self.linear_1 = Linear(self.cfg.out_hidden_size, True, self.dtype)
        self.linear_2 = Linear(self.cfg.out_hidden_size, True, self.dtype)

    def __call__(self, x: Array) -> jax.Array:
        return self.linear_2(in_float32(_exact_gelu, self.linear_1(x)))
