"""Writes tests/golden/models/adapter.npz: what PEFT makes of an adapter that we saved. Needs torch.

    python -m tests.models.make_adapter_goldens
"""

from __future__ import annotations

import pathlib
import tempfile

import numpy as np

from guardjax.models.peft_save import save_peft
from tests.models import reference_model
from tests.models.adapter_cases import seeded_adapter
from tests.models.reference_cases import UNTIED, make_row

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "models" / "adapter.npz"
ROW = "two_images"


def peft_logits(folder: str | pathlib.Path) -> dict[str, np.ndarray]:
    """Logits [T, V] of PEFT over the reference with the adapter in `folder`, beside and merged."""
    import peft

    row = make_row(UNTIED, ROW)
    model = peft.PeftModel.from_pretrained(reference_model.build(UNTIED), str(folder)).eval()
    beside, _ = reference_model.run(model.base_model.model, row)
    merged, _ = reference_model.run(model.merge_and_unload(), row)
    return {"beside": beside, "merged": merged}


def main() -> None:
    """Writes the file."""
    with tempfile.TemporaryDirectory() as folder:
        save_peft(seeded_adapter(UNTIED), UNTIED, pathlib.Path(folder) / "adapter")
        np.savez_compressed(GOLDEN, **peft_logits(pathlib.Path(folder) / "adapter"))


if __name__ == "__main__":
    main()
