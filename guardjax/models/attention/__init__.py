"""Attention: one meaning, several back ends, chosen by `ModelConfig.attention`.

`xla` (`segments.py`) is the reference and the default: plain matrix products, any shape, any
device. `cudnn` and `splash` are kernels of JAX that never hold the scores; both are asked through
`rows.py`, which lays all segments of a prompt into one row, so that one call of the kernel, with
the kernel's own gradient, does what `xla` does part by part.
"""

from guardjax.models.attention.attend import OwnTokens, attend_segments
from guardjax.models.attention.backends import BACKENDS, AttentionError, choose_backend
from guardjax.models.attention.rows import attend_rows
from guardjax.models.attention.segments import KeyPart, segment_attention

__all__ = ["BACKENDS", "AttentionError", "KeyPart", "OwnTokens", "attend_rows", "attend_segments",
           "choose_backend", "segment_attention"]
