"""Writes, with the reference implementation, what checkpoints of its own look like.

Run where torch and transformers are installed: `python -m tests.models.make_checkpoint_goldens`,
with names of files to write only these.

* `tensors.json.gz`, `family_tensors.json.gz`: hub name -> shape of every tensor of the releases;
* `saved.json`, `saved_families.json`: config and index of small models that it saved.
"""

from __future__ import annotations

import copy
import gzip
import json
import pathlib
import sys
import tempfile
from collections.abc import Callable
from typing import Any

import torch
import transformers
from transformers.core_model_loading import revert_weight_conversion

from guardjax.models.releases import FAMILY_RELEASES, RELEASES
from tests.models import reference_model
from tests.models.parity_cases import FAMILY_SHAPES, random_tensor
from tests.models.reference_cases import CONFIGS, seeded_tensor

FOLDER = pathlib.Path(__file__).parents[1] / "golden" / "models"
SHARD = "60KB"
VERSIONS = [f"torch {torch.__version__}", f"transformers {transformers.__version__}"]


def release_tensors(raw: dict[str, Any]) -> dict[str, list[int]]:
    """Hub name -> shape of what the reference would save of a model of this config."""
    with torch.device("meta"):
        model = getattr(transformers, raw["architectures"][0])(
            transformers.AutoConfig.for_model(**copy.deepcopy(raw)))
    model.tie_weights()     # a tied head is then counted once, as it is saved
    state = revert_weight_conversion(model, dict(model.named_parameters()))
    return {name: list(tensor.shape) for name, tensor in sorted(state.items())}


def saved(model: transformers.PreTrainedModel) -> dict[str, Any]:
    """Config and index of a small model in several shards."""
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder, max_shard_size=SHARD)
        read = {name: json.loads((pathlib.Path(folder) / file).read_text(encoding="utf-8"))
                for name, file in (("config", "config.json"),
                                   ("index", "model.safetensors.index.json"))}
    return read


def tensors_file(releases: dict[str, dict[str, Any]]) -> bytes:
    """Without a time in the header, the same content is the same file."""
    tensors = {size: release_tensors(raw) for size, raw in releases.items()}
    text = json.dumps({"versions": VERSIONS, "tensors": tensors}, separators=(",", ":"))
    return gzip.compress(text.encode(), mtime=0)


def saved_file(configs: dict[str, Any], weights: Callable[..., Any]) -> bytes:
    """One model a config."""
    models = {name: saved(reference_model.build(cfg, weights)) for name, cfg in configs.items()}
    return (json.dumps({"versions": VERSIONS, "models": models}, indent=1, sort_keys=True)
            + "\n").encode()


FILES: dict[str, Callable[[], bytes]] = {
    "tensors.json.gz": lambda: tensors_file(RELEASES),
    "family_tensors.json.gz": lambda: tensors_file(FAMILY_RELEASES),
    "saved.json": lambda: saved_file(CONFIGS, seeded_tensor),
    "saved_families.json": lambda: saved_file(FAMILY_SHAPES, random_tensor),
}


def main(names: list[str]) -> None:
    """Writes the files of these names; all, if there are none."""
    for name in names or FILES:
        (FOLDER / name).write_bytes(FILES[name]())
        print(f"wrote {FOLDER / name}: {(FOLDER / name).stat().st_size} bytes")


if __name__ == "__main__":
    main(sys.argv[1:])
