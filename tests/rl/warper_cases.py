"""Logits and truncations on which ours and transformers' are compared."""

from __future__ import annotations

import numpy as np

# (top_k, top_p, min_p); alone, together, and at their edges.
TRUNCATIONS = (
    (0, 1.0, 0.0), (1, 1.0, 0.0), (7, 1.0, 0.0), (1000, 1.0, 0.0),
    (0, 0.9, 0.0), (0, 0.5, 0.0), (0, 1e-6, 0.0), (0, 0.999, 0.0),
    (0, 1.0, 0.1), (0, 1.0, 0.9), (0, 1.0, 1e-4),
    (12, 0.8, 0.0), (12, 1.0, 0.05), (0, 0.8, 0.05), (20, 0.9, 0.02),
)


def make_logits() -> np.ndarray:
    """[rows, V] float32: from nearly flat to nearly certain."""
    rng = np.random.default_rng(0)
    scales = np.array([0.1, 0.5, 1.0, 2.0, 4.0, 8.0])
    return (rng.normal(size=(6, 61)) * scales[:, None]).astype(np.float32)
