"""Parts of which towers and decoder are made: norms, MLPs, rotary embedding."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from guardjax.models.linear import Linear

Array = jax.Array | np.ndarray


class RMSNorm(nn.Module):
    """Root-mean-square norm over the last axis; the statistics are float32 whatever the input."""

    eps: float

    @nn.compact
    def __call__(self, x: Array) -> jax.Array:
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
        wide = x.astype(jnp.float32)
        wide = wide * jax.lax.rsqrt(jnp.mean(wide * wide, axis=-1, keepdims=True) + self.eps)
        return scale.astype(x.dtype) * wide.astype(x.dtype)


class LayerNorm(nn.Module):
    """Zero mean and unit variance over the last axis, in float32, rounded once at the end."""

    eps: float

    @nn.compact
    def __call__(self, x: Array) -> jax.Array:
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],))
        wide = x.astype(jnp.float32)
        wide = wide - jnp.mean(wide, axis=-1, keepdims=True)
        wide = wide * jax.lax.rsqrt(jnp.mean(wide * wide, axis=-1, keepdims=True) + self.eps)
        return (wide * scale + bias).astype(x.dtype)


class GatedMLP(nn.Module):
    """SwiGLU: `down(silu(gate(x)) * up(x))`, x is [..., D]."""

    hidden_size: int
    intermediate_size: int
    use_bias: bool
    dtype: str

    def setup(self) -> None:
        self.gate_proj = Linear(self.intermediate_size, self.use_bias, self.dtype)
        self.up_proj = Linear(self.intermediate_size, self.use_bias, self.dtype)
        self.down_proj = Linear(self.hidden_size, self.use_bias, self.dtype)

    def __call__(self, x: Array) -> jax.Array:
        return self.down_proj(in_float32(nn.silu, self.gate_proj(x)) * self.up_proj(x))


class PlainMLP(nn.Module):
    """`fc2(activation(fc1(x)))` with biases, x is [..., D]."""

    hidden_size: int
    intermediate_size: int
    activation: Callable[[Array], Array]
    dtype: str

    def setup(self) -> None:
        self.fc1 = Linear(self.intermediate_size, True, self.dtype)
        self.fc2 = Linear(self.hidden_size, True, self.dtype)

    def __call__(self, x: Array) -> jax.Array:
        return self.fc2(in_float32(self.activation, self.fc1(x)))


def quick_gelu(x: Array) -> jax.Array:
    """`x * sigmoid(1.702 x)` (Hendrycks & Gimpel 2016, arXiv 1606.08415, section 2)."""
    return x * nn.sigmoid(1.702 * x)


def in_float32(activation: Callable[[Array], Array], x: Array) -> jax.Array:
    """`activation(x)` rounded once to x's type, as torch does, and not after every operation."""
    return activation(x.astype(jnp.float32)).astype(x.dtype)


def inverse_frequencies(dim: int, theta: float) -> np.ndarray:
    """[dim / 2] float32. Computed in float32 as in the reference, so that large positions agree."""
    exponent = np.arange(0, dim, 2, dtype=np.float32) / np.float32(dim)
    return (np.float32(1.0) / np.float32(theta) ** exponent).astype(np.float32)


def rotate(x: Array, angles: tuple[Array, Array]) -> jax.Array:
    """Rotary embedding of x [..., d] by (cos, sin), each broadcastable to [..., d / 2].

    Coordinate i turns with coordinate i + d/2 (the half-split convention), in float32.
    """
    cos, sin = angles
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    turned = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return turned.astype(x.dtype)
