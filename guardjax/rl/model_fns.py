"""What reinforcement learning needs of a model: functions, no classes.

`rl` never imports `models`. Whoever composes a run binds the model's config and passes these.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax

from guardjax.types import Array, Head, PromptBatch, Segment, VisionInputs

Params = Any
KVCache = Any


@dataclasses.dataclass(frozen=True)
class ModelFns:
    """The functions of one model, its config already bound. Hashable, so `jit` may close over it.

    `D` and `U` are those of ARCHITECTURE.md; `lead` is a segment's leading shape.
    """

    encode: Callable[[Params, VisionInputs], Array]
    """`(params, vision of lead [B]) -> features [B, U, D]`."""

    forward: Callable[
        [Params, Sequence[Segment], Array | None, KVCache | None], tuple[tuple[Array, ...], KVCache]
    ]
    """`(params, segments, features, cache) -> (hidden lead + [T, D] of each segment, cache)`.

    A segment attends to the cache, to every earlier segment and to its own past. With a cache
    whose buffer is open, the one segment given has the buffer's `lead` and is written into it.
    """

    unembed: Callable[[Params, Array], Array]
    """`(params, hidden [..., D]) -> logits [..., V] float32`."""

    open_buffer: Callable[[KVCache, tuple[int, ...], int], KVCache]
    """`(cache, lead, max_tokens) -> cache` with room for `max_tokens` more tokens of `lead`."""

    head: Callable[[Params], Head] | None = None
    """`params -> Head`, what `unembed` multiplies with; None where it is more than a product."""

    open_slots: Callable[[KVCache, Array, int], KVCache] | None = None
    """`(cache, rows [S], max_tokens) -> cache` of S slots, see `slots.py`; None has none.

    Slot s holds what row `rows[s]` of `cache` holds, and an empty buffer with room for `max_tokens`
    in which it has a place of its own: `forward` then takes one segment [S, 1].
    """

    refill_slots: Callable[[KVCache, KVCache, Array, Array], KVCache] | None = None
    """`(slots, cache, rows [S], fresh [S] bool) -> slots`: all hold `rows` of `cache`, and the
    buffers of fresh ones are empty again."""


def encode_vision(
    fns: ModelFns, params: Params, prompts: PromptBatch, features: Array | None = None
) -> Array | None:
    """Image features, one row a prompt or a trunk: [B, U, D], or [I, U, D] after a trunk.

    They are `features` where the caller has them, else encoded, else None. Each picture is encoded
    once, however many prompts branch from it; pictures of branches lie side by side in the row.
    """
    if features is not None or prompts.vision is None:
        return features
    lead = prompts.vision.frame.shape[:-1]
    if len(lead) == 1:
        return fns.encode(params, prompts.vision)
    rows = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[len(lead):]), prompts.vision)
    encoded = fns.encode(params, rows)
    return encoded.reshape(lead[0], -1, encoded.shape[-1])


def bind(model: Any, cfg: Any) -> ModelFns:
    """The functions of a model module.

    These are `encode_images`, `forward`, `unembed`, `open_buffer`, `head`, `open_slots` and
    `refill_slots`.
    """
    return ModelFns(
        encode=lambda params, vision: model.encode_images(params, cfg, vision),
        forward=lambda params, segments, features, cache: model.forward(
            params, cfg, segments, features, cache
        ),
        unembed=lambda params, hidden: model.unembed(params, cfg, hidden),
        open_buffer=lambda cache, lead, num: model.open_buffer(cfg, cache, lead, num),
        head=lambda params: model.head(params, cfg),
        open_slots=lambda cache, rows, num: model.open_slots(cfg, cache, rows, num),
        refill_slots=model.refill_slots,
    )
