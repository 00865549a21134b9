"""Where a layer's parameters are when equal layers are stacked (`ModelConfig.scan_layers`).

Unrolled, every layer has a name: `model/layers_7`, `visual/blocks_12`. Stacked, a leaf of all
layers is one array with leading axes:

* `model/layers`: [layers, ...];
* `visual/blocks/window`: [groups, window blocks of a group, ...], and `visual/blocks/full`:
  [groups, ...], one block with full attention after each run of window blocks. A tower in which
  that pattern does not repeat stays unrolled.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from guardjax.models.config import ModelConfig

Path = tuple[str, ...]
Index = tuple[int, ...]
_LAYER = re.compile(r"(layers|blocks)_(\d+)")


def place(cfg: ModelConfig, path: Path) -> tuple[Path, Index]:
    """(path here, indices into its leading axes) of the unrolled model's leaf or module `path`.

    The indices are () for what is not stacked, and for everything without `scan_layers`.
    """
    match = _LAYER.fullmatch(path[1]) if cfg.scan_layers and len(path) > 1 else None
    if match is None:
        return path, ()
    index, run = int(match[2]), cfg.vision.window_run
    if match[1] == "layers":
        return (path[0], "layers", *path[2:]), (index,)
    if run is None:
        return path, ()
    group, inside = divmod(index, run + 1)
    if inside == run:
        return (path[0], "blocks", "full", *path[2:]), (group,)
    return (path[0], "blocks", "window", *path[2:]), (group, inside)


def by_place(cfg: ModelConfig, paths: Iterable[Path]) -> dict[Path, list[tuple[Index, Path]]]:
    """Path here -> (indices, path in the unrolled model) of all that is stacked there, in order."""
    found: dict[Path, list[tuple[Index, Path]]] = {}
    for path in paths:
        here, index = place(cfg, path)
        found.setdefault(here, []).append((index, path))
    return {here: sorted(layers) for here, layers in found.items()}
