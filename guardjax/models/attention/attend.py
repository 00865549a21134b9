"""The decoder's attention over a list of segments, by whichever back end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from guardjax.models.attention.rows import Kernel, segments_in_rows
from guardjax.models.attention.segments import KeyPart, segment_attention

Array = jax.Array | np.ndarray


class OwnTokens(NamedTuple):
    """A segment's projections. S is T, or the whole buffer's length when decoding."""

    queries: Array     # lead + [K, R, T, d]
    keys: Array        # lead + [K, S, d]
    values: Array      # lead + [K, S, d]
    mask: Array        # lead + [S] bool, True where a token is real
    own_mask: Array    # lead + [T, S] bool: real, and no later than the query


def attend_segments(segments: Sequence[OwnTokens], past: Sequence[KeyPart], *, scale: float,
                    backend: str | Kernel = "xla") -> list[jax.Array]:
    """Each segment attends to the past, to the segments before it and to its own past.

    A step of decoding always takes "xla": it has one query an answer, so the scores are small, and
    laying the prompt's keys into a row would copy them at every step.

    Args:
        segments: in order; leading axes grow.
        past: keys and values of what came before, mask lead + [1, S].
        scale: factor of the scores.
        backend: "xla", "cudnn" or "splash" (see `choose_backend`), or a kernel itself.

    Returns:
        Of each segment lead + [K, R, T, d]. The rows of padding are finite and mean nothing; a row
        that sees no key at all is 0.

    Raises:
        ValueError: leading axes that do not grow.
    """
    decoding = any(s.keys.shape[-2] != s.queries.shape[-2] or s.queries.shape[-2] == 1
                   for s in segments)
    if backend == "xla" or decoding:
        return _part_by_part(segments, past, scale)
    own = [KeyPart(s.keys, s.values, s.mask[..., None, :]) for s in segments]
    return segments_in_rows([s.queries for s in segments], own, past, scale=scale,
                            backend=backend)


def _part_by_part(segments: Sequence[OwnTokens], past: Sequence[KeyPart],
                  scale: float) -> list[jax.Array]:
    parts, outputs = list(past), []
    for queries, keys, values, mask, own_mask in segments:
        own = KeyPart(keys, values, own_mask)
        outputs.append(segment_attention(queries, [*parts, own], scale=scale))
        parts.append(KeyPart(keys, values, mask[..., None, :]))
    return outputs
