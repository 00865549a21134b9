"""The dataclasses that travel between packages: arrays and NumPy only.

Axis letters are those of ARCHITECTURE.md: `B` prompts, `G` completions a prompt, `P` prompt
tokens, `T` completion tokens, `N` image patches, `U` image features, `D` model width.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array | np.ndarray


@dataclasses.dataclass(frozen=True)
class PolicyExample:
    """One question to a guard (or to the model it is made from), before tokenisation.

    `kind` is "judge" for a picture under a policy; the base model also learns from "caption" and
    "question", from the same three with the picture told in words ("read", "retell", "ask"), and
    from "study" (a scene in words, then rules one by one). Only "judge" and "read" have a label.
    """

    example_id: str
    kind: str
    question: str                       # trusted words of the template: what is asked
    policy_text: str = ""               # untrusted data: tokenised without special tokens
    image: np.ndarray | None = None     # [H, W, 3] uint8, or None for words only
    answer: str = ""                    # supervised target; never shown at evaluation
    label: str | None = None            # "safe" or "unsafe"
    rule_ids: tuple[str, ...] = ()      # rules that the picture violates
    image_id: str = ""
    policy_id: str = ""
    pair_id: str = ""                   # the edited pair that the image belongs to, if any
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@flax.struct.dataclass
class VisionInputs:
    """Patches of each prompt's images in window order, padded on the right (see `layout.py`).

    Prompts that share a picture have it once, and rows of branches with a picture each have lead
    [I, M] in the place of [B] (see `PromptBatch`).
    """

    patches: Array    # [B, N, channels * temporal * patch * patch] float32
    hw: Array         # [B, N, 2] int32, row and column of the patch (2-D rotary)
    frame: Array      # [B, N] int32, which image frame the patch belongs to; -1 pads


@flax.struct.dataclass
class Segment:
    """A run of tokens with leading axes `lead`: `[B]` for a prompt, `[B, G]` for answers."""

    tokens: Array                        # lead + [T] int32
    positions: Array                     # lead + [T, 3] int32, M-RoPE (time, row, column)
    mask: Array                          # lead + [T] bool, True keeps
    feature_index: Array | None = None   # lead + [T] int32, image feature of the token; -1 is text


@flax.struct.dataclass
class PromptBatch:
    """B padded prompts on the device: each on its own, or M at a time branching from one trunk.

    Prompts that begin alike (one picture under M policies) are stored as I trunks and B = I * M
    branches; prompt i * M + m is trunk i and then its branch m. Whoever takes or gives answers
    counts prompts from 0 to B either way.
    """

    prompt: Segment                      # lead [B], padded on the right; [I, M] after a trunk
    next_pos: Array                      # of that lead, int32: position of the first answer token
    vision: VisionInputs | None = None   # lead [B]; after a trunk [I] (in it) or [I, M] (behind it)
    trunk: Segment | None = None         # lead [I], padded on the right

    @property
    def segments(self) -> tuple[Segment, ...]:
        """What goes through the model, in order."""
        return (self.prompt,) if self.trunk is None else (self.trunk, self.prompt)

    @property
    def lead(self) -> tuple[int, ...]:
        """(B,) or (I, M), the leading axes that answers continue."""
        return self.next_pos.shape

    @property
    def size(self) -> int:
        """B."""
        return math.prod(self.lead)


@flax.struct.dataclass
class Head:
    """How hidden states become logits, with the vocabulary along an axis that can be cut."""

    weight: Array    # [V, D] (an embedding that is tied) or [D, V]
    vocab_axis: int = flax.struct.field(pytree_node=False)      # 0 or 1
    dtype: str = flax.struct.field(pytree_node=False)           # of both factors of the product

    def product(self, hidden: Array, weight: Array) -> jax.Array:
        """Logits `[..., v]` float32 of hidden states `[..., D]`; `weight` may be a cut of v."""
        axes = ((hidden.ndim - 1,), (1 - self.vocab_axis,))
        return jax.lax.dot_general(
            jnp.asarray(hidden, self.dtype), jnp.asarray(weight, self.dtype), (axes, ((), ())),
            preferred_element_type=jnp.float32)


@flax.struct.dataclass
class Samples:
    """G sampled completions of each prompt. Tokens beyond `length` are padding."""

    tokens: Array      # [B, G, T] int32
    length: Array      # [B, G] int32, counts the end token if there is one
    logp: Array        # [B, G, T] float32, natural log under the sampling distribution
    model_logp: Array  # [B, G, T] float32, before truncation: what recomputing them gives
    ended: Array       # [B, G] bool, False where the limit cut the completion
