"""What a checkpoint belongs to, and how it is said that it belongs to something else.

A run's folder is checked before (see `workdir.py`); a checkpoint can still be a stranger in it:
copied from another run, or left by a model whose files were replaced since.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from guardjax.models.config import ModelConfig
from guardjax.train.config import StageConfig
from guardjax.train.config import to_text

Identity = Mapping[str, Sequence[str]]
"""What it is (model, tokenizer, ...) -> lines that must be equal; a missing part is not asked."""

# How a model is computed, not which one it is.
_COMPUTED = ("attention:", "remat:")

_SHOWN = 24
_FIXES = {
    "model config": "start from the model that the checkpoint was trained from (`base`)",
    "tokenizer": "put the tokenizer's files back as they were: token ids mean other words now",
    "stages": "go back to the old list of stages",
    "config": "go back to the old config",
    "arrays": "go back to the old model and optimiser",
}


def identity_of(cfg: ModelConfig, tokenizer_digest: str, stages: Sequence[StageConfig],
                config_lines: Sequence[str]) -> Identity:
    """Identity of a run.

    Args:
      config_lines: of the resolved config, those that must not change.
    """
    model = [line for line in to_text(cfg).splitlines() if not line.startswith(_COMPUTED)]
    return {
        "model config": model, "tokenizer": [f"sha256 {tokenizer_digest}"],
        "stages": [f"{index}: {stage.name} ({stage.kind}, {stage.steps} steps)"
                   for index, stage in enumerate(stages)],
        "config": list(config_lines),
    }


def layout(state: Any) -> list[str]:
    """One line "path: float32[3,4]" for each array of a state, sorted."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(state)
    return sorted(f"{jax.tree_util.keystr(path, simple=True, separator='/')}: {leaf.dtype}"
                  f"[{','.join(map(str, leaf.shape))}]" for path, leaf in leaves)


def difference(saved: Identity, now: Identity) -> str:
    """Empty if all parts that both have are equal; else what differs, line by line, and the fix."""
    found = []
    for part in (name for name in now if name in saved):
        if list(saved[part]) != list(now[part]):
            lines = [line for line in difflib.unified_diff(
                list(saved[part]), list(now[part]), n=0, lineterm="") if line[:2] not in (
                    "--", "++", "@@")]
            more = [f"... and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []
            found += [f"another {part} (- checkpoint, + this run); {_FIXES[part]}:",
                      *lines[:_SHOWN], *more]
    return "\n".join(found)
