"""Weights on their way to an engine: a folder under Hugging Face's names that both can read."""

from __future__ import annotations

import dataclasses
import pathlib
import shutil
from typing import Any

from guardjax.models.config import ModelConfig
from guardjax.models.hf_weights import save_hf


@dataclasses.dataclass(frozen=True)
class WeightFolder:
    """Where a run puts its weights for an engine; nothing else lies in it.

    Attributes:
      root: the folder, by a path under which the engine's machine sees it too.
      cfg: of the weights. Files are of its `dtype`, which is what training computes in.
    """

    root: pathlib.Path
    cfg: ModelConfig

    def write(self, params: Any, version: str) -> pathlib.Path:
        """Writes all parameters to `root/version`, which appears whole or not at all.

        Raises:
          OSError: the disk is full, or the like.
        """
        path = self.root / version
        shutil.rmtree(path, ignore_errors=True)
        save_hf(params, self.cfg, path, dtype=self.cfg.dtype)
        return path.resolve()

    def keep_only(self, version: str) -> None:
        """Removes every other version: a server that was restarted is handed this one again."""
        for path in self.root.glob("*"):
            if path.name != version:
                shutil.rmtree(path, ignore_errors=True)

    def clear(self) -> None:
        """Removes all of it."""
        shutil.rmtree(self.root, ignore_errors=True)
