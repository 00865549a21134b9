"""Writes tests/golden/models/parity.npz and families.npz with the reference implementation.

Run where torch and transformers are installed: `python -m tests.models.make_parity_goldens`, with
the name of one of the files to write only that.
"""

from __future__ import annotations

import pathlib
import sys

import numpy as np
import torch
import transformers

from guardjax.models.config import ModelConfig
from tests.models import reference_model
from tests.models.parity_cases import (BF16_SHAPES, END_ID, FAMILY_SHAPES, GRADIENT_SHAPES,
                                       GREEDY_SHAPES, MAX_TOKENS, RELEASE_SHAPES, kinds_of,
                                       make_answers, make_rows, random_tensor, some_tokens)
from tests.models.parity_errors import rms_error, sketch

FOLDER = pathlib.Path(__file__).parents[1] / "golden" / "models"
FILES = {"parity.npz": RELEASE_SHAPES, "families.npz": FAMILY_SHAPES}


def main(names: list[str]) -> None:
    """Writes the files of these names; all, if there are none."""
    for name in names or FILES:
        np.savez_compressed(FOLDER / name, **results(FILES[name]))
        print(f"wrote {FOLDER / name}: {(FOLDER / name).stat().st_size} bytes")


def results(shapes: dict[str, ModelConfig]) -> dict[str, np.ndarray]:
    """What the reference says. Every row is asked alone, without padding."""
    arrays = {"versions": np.asarray([f"torch {torch.__version__}",
                                      f"transformers {transformers.__version__}"])}
    for shape, cfg in shapes.items():
        rows = make_rows(cfg)
        model = reference_model.build(cfg, random_tensor)
        exact = []
        for kind, row in zip(kinds_of(cfg), rows):
            logits, positions = reference_model.run(model, row)
            exact.append(logits[some_tokens(row)])
            arrays[f"{shape}/{kind}/logits"] = exact[-1]
            arrays[f"{shape}/{kind}/positions"] = positions.astype(np.int16)
        if shape in BF16_SHAPES:
            half = reference_model.build(cfg, random_tensor, torch.bfloat16)
            found = [reference_model.run(half, row)[0][some_tokens(row)] for row in rows]
            arrays[f"{shape}/bf16"] = np.asarray(rms_error(found, exact))
        if shape in GREEDY_SHAPES:
            answers = reference_model.greedy(model, rows, MAX_TOKENS, END_ID)
            for kind, answer in zip(kinds_of(cfg), answers):
                arrays[f"{shape}/{kind}/greedy"] = np.asarray(answer, np.int16)
        if shape in GRADIENT_SHAPES:
            loss, leaves = reference_model.gradient(model, rows, *make_answers(cfg, len(rows)))
            arrays[f"{shape}/loss"] = np.asarray(loss)
            arrays[f"{shape}/gradient"] = sketch(leaves)
    return arrays


if __name__ == "__main__":
    main(sys.argv[1:])
