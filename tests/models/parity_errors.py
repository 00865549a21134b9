"""How far two results lie apart, and the bars that parity is held to."""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping, Sequence

import numpy as np

LOGITS_BAR = 1e-5       # float32: largest difference, as a share of the largest logit
GRADIENT_BAR = 1e-4     # float32: of each leaf, norm of the difference over the norm

_NUM_PROBES = 8

# A softmax is the same whatever is added to all scores of a query, so that a bias of keys that do
# not turn has no gradient but rounding errors.
_VANISHING = re.compile(r"vision_tower\..*\.k_proj\.bias")


def relative_error(ours: np.ndarray, reference: np.ndarray) -> float:
    """Largest difference over the largest magnitude of the reference."""
    return float(np.abs(ours - reference).max() / np.abs(reference).max())


def rms_error(ours: Sequence[np.ndarray], reference: Sequence[np.ndarray]) -> float:
    """Root mean square of the difference over that of the reference, over all rows together."""
    difference = sum(float(np.square(a - b, dtype=np.float64).sum())
                     for a, b in zip(ours, reference, strict=True))
    return float(np.sqrt(difference / sum(np.square(b, dtype=np.float64).sum()
                                          for b in reference)))


def leaf_errors(ours: Mapping[str, np.ndarray], reference: Mapping[str, np.ndarray],
                ) -> dict[str, float]:
    """Of each leaf, the norm of the difference over the norm of the reference.

    Raises:
        KeyError: they do not have the same leaves.
    """
    ours, reference = compared(ours), compared(reference)
    if ours.keys() != reference.keys():
        raise KeyError(f"leaves of one side only: {sorted(ours.keys() ^ reference.keys())}")
    return {name: float(np.linalg.norm(ours[name] - reference[name])
                        / np.linalg.norm(reference[name])) for name in reference}


def sketch(leaves: Mapping[str, np.ndarray]) -> np.ndarray:
    """[leaves, 1 + probes] float64, leaves by name: a leaf's norm, and its products with noise.

    The squared difference of two leaves' products is, in the mean over the noise, the squared norm
    of their difference: enough to hold a gradient against one that was not stored.
    """
    rows = []
    for name in sorted(compared(leaves)):
        flat = leaves[name].astype(np.float64).ravel()
        rng = np.random.default_rng(zlib.crc32(name.encode()))
        products = [rng.standard_normal(flat.size, np.float32) @ flat for _ in range(_NUM_PROBES)]
        rows.append([np.linalg.norm(flat), *products])
    return np.asarray(rows)


def sketch_errors(ours: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """[leaves]: what `leaf_errors` would say, estimated from two sketches."""
    apart = np.sqrt(np.square(ours[:, 1:] - reference[:, 1:]).mean(1))
    return apart / reference[:, 0]


def compared(leaves: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The leaves whose gradient says something."""
    return {name: leaf for name, leaf in leaves.items() if not _VANISHING.search(name)}
