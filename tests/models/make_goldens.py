"""Writes tests/golden/models/logits.npz with the reference implementation.

Run where torch and transformers are installed: `python -m tests.models.make_goldens`.
"""

from __future__ import annotations

import pathlib

import numpy as np
import torch
import transformers

from tests.models import reference_model
from tests.models.reference_cases import CONFIGS, ROWS, make_row

TARGET = pathlib.Path(__file__).parents[1] / "golden" / "models" / "logits.npz"


def main() -> None:
    arrays = {"versions": np.asarray([f"torch {torch.__version__}",
                                      f"transformers {transformers.__version__}"])}
    for config_name, cfg in CONFIGS.items():
        model = reference_model.build(cfg)
        for row_name in ROWS:
            logits, positions = reference_model.run(model, make_row(cfg, row_name))
            arrays[f"{config_name}/{row_name}/logits"] = logits
            arrays[f"{config_name}/{row_name}/positions"] = positions
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(TARGET, **arrays)
    print(f"wrote {TARGET}: {TARGET.stat().st_size} bytes")


if __name__ == "__main__":
    main()
