"""Copies a trained model into the package in bfloat16: half the bytes, the same verdicts.

    python experiments/safeguard_vl/ship.py runs/base/model guardjax/assets/base
"""

from __future__ import annotations

import pathlib
import shutil
import sys

import guardjax.models as models
from guardjax.data.batching import load_batcher, save_batcher

LIMIT = 8 * 1024**2  # bytes that a shipped model may have


def ship(source: pathlib.Path, target: pathlib.Path) -> int:
    """Writes `source` to `target`, which is replaced; returns the bytes written.

    Raises:
      ValueError: the result is larger than `LIMIT`; `target` is as it was.
    """
    cfg, params = models.load_hf(source)
    staging = target.with_name(target.name + ".new")
    shutil.rmtree(staging, ignore_errors=True)
    models.save_hf(params, cfg, staging, dtype="bfloat16")
    save_batcher(load_batcher(source), staging)
    size = sum(file.stat().st_size for file in staging.iterdir())
    if size > LIMIT:
        shutil.rmtree(staging)
        raise ValueError(f"{source} takes {size:,} bytes, and a shipped model at most {LIMIT:,}")
    shutil.rmtree(target, ignore_errors=True)
    staging.rename(target)
    return size


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    written = ship(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))
    print(f"{sys.argv[2]}: {written:,} bytes")
