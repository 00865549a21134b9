"""Writes, with the reference implementation, what checkpoints of its own look like.

Run where torch and transformers are installed: `python -m tests.models.make_checkpoint_goldens`.
It writes `tests/golden/models/tensors.json.gz`, hub name -> shape of every tensor of the four
releases' sizes, and `saved.json`, the config and the index of small models that it saved.
"""

from __future__ import annotations

import gzip
import json
import pathlib
import tempfile
from typing import Any

import torch
import transformers
from transformers.core_model_loading import revert_weight_conversion

from tests.models import reference_model
from tests.models.reference_cases import CONFIGS
from guardjax.models.releases import RELEASES

FOLDER = pathlib.Path(__file__).parents[1] / "golden" / "models"
SHARD = "60KB"


def release_tensors(raw: dict[str, Any]) -> dict[str, list[int]]:
    """Hub name -> shape of what the reference would save of a model of this config."""
    with torch.device("meta"):
        model = transformers.Qwen2_5_VLForConditionalGeneration(
            transformers.Qwen2_5_VLConfig(**raw))
    model.tie_weights()     # a tied head is then counted once, as it is saved
    state = revert_weight_conversion(model, dict(model.named_parameters()))
    return {name: list(tensor.shape) for name, tensor in sorted(state.items())}


def saved(cfg: Any) -> dict[str, Any]:
    """Config and index of a small model in several shards."""
    with tempfile.TemporaryDirectory() as folder:
        reference_model.build(cfg).save_pretrained(folder, max_shard_size=SHARD)
        read = {name: json.loads((pathlib.Path(folder) / file).read_text(encoding="utf-8"))
                for name, file in (("config", "config.json"),
                                   ("index", "model.safetensors.index.json"))}
    return read


def main() -> None:
    """Writes both files."""
    versions = [f"torch {torch.__version__}", f"transformers {transformers.__version__}"]
    tensors = {size: release_tensors(raw) for size, raw in RELEASES.items()}
    text = json.dumps({"versions": versions, "tensors": tensors}, separators=(",", ":"))
    # Without a time in the header, the same content is the same file.
    (FOLDER / "tensors.json.gz").write_bytes(gzip.compress(text.encode(), mtime=0))
    models = {name: saved(cfg) for name, cfg in CONFIGS.items()}
    (FOLDER / "saved.json").write_text(
        json.dumps({"versions": versions, "models": models}, indent=1, sort_keys=True) + "\n",
        encoding="utf-8")
    for name in ("tensors.json.gz", "saved.json"):
        print(f"wrote {FOLDER / name}: {(FOLDER / name).stat().st_size} bytes")


if __name__ == "__main__":
    main()
