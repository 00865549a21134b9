"""Writes tests/golden/rl/warpers.npz: log-probabilities after transformers' own logits warpers.

Run where torch and transformers are installed: `python -m tests.rl.make_warper_goldens`. The
warpers stand in the order in which `generate` applies them.
"""

from __future__ import annotations

import pathlib

import numpy as np
import torch
from transformers.generation.logits_process import (
    LogitsProcessorList,
    MinPLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from tests.rl.warper_cases import TRUNCATIONS, make_logits

TARGET = pathlib.Path(__file__).parents[1] / "golden" / "rl" / "warpers.npz"


def main() -> None:
    """Writes the file."""
    logits, found = torch.tensor(make_logits(), dtype=torch.float64), []
    for top_k, top_p, min_p in TRUNCATIONS:
        warpers = LogitsProcessorList()
        if top_k > 0:
            warpers.append(TopKLogitsWarper(top_k))
        if top_p < 1:
            warpers.append(TopPLogitsWarper(top_p))
        if min_p > 0:
            warpers.append(MinPLogitsWarper(min_p))
        found.append(torch.log_softmax(warpers(None, logits.clone()), dim=-1).numpy())
    np.savez_compressed(TARGET, logp=np.stack(found))


if __name__ == "__main__":
    main()
