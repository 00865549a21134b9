"""The reference implementation's logits on the probes, where torch is installed."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from guardjax.models.config import ClipConfig, ModelConfig
from guardjax.models.probes import Probe


def reference_logits(path: str | os.PathLike, cfg: ModelConfig, probes: Sequence[Probe],
                     ) -> tuple[str, dict[str, np.ndarray]]:
    """What transformers computes of the same directory in float32.

    Args:
      path: the directory.
      cfg: its config.
      probes: those of `make_probes`.

    Returns:
      (versions, probe name -> logits [T, V] float32).

    Raises:
      ImportError: torch is not installed.
      ValueError: transformers finds tensors missing or unused.
    """
    import torch
    import transformers

    model, report = getattr(transformers, cfg.architecture).from_pretrained(
        path, dtype=torch.float32, attn_implementation="eager", output_loading_info=True)
    if problems := {kind: sorted(names) for kind, names in report.items() if names}:
        raise ValueError(f"transformers does not load {path} cleanly: {problems}")
    model.eval()
    found = {}
    for probe in probes:
        tokens = torch.from_numpy(probe.tokens.astype(np.int64))[None]
        inputs = {"input_ids": tokens}
        if isinstance(cfg.vision, ClipConfig):
            if probe.patches is not None:
                inputs |= {"pixel_values": torch.from_numpy(pictures_of(cfg, probe.patches))}
        else:
            # Without the types of the tokens it would silently use plain positions.
            inputs |= {"mm_token_type_ids": (tokens == cfg.image_token_id).int()}
            model.model.rope_deltas = None
            if probe.patches is not None:
                inputs |= {"pixel_values": torch.from_numpy(probe.patches),
                           "image_grid_thw": torch.tensor(probe.grids)}
        with torch.no_grad():
            found[probe.name] = model(**inputs, use_cache=False).logits[0].numpy()
    return f"transformers {transformers.__version__}, torch {torch.__version__}", found


def pictures_of(cfg: ModelConfig, patches: np.ndarray) -> np.ndarray:
    """Pictures [I, C, H, W] of one size from their patches [N, P], zeros beyond the last patch."""
    side, (channels, patch, _) = cfg.vision.window_units, cfg.vision.patch_shape
    cut = patches.reshape(-1, side, side, channels, patch, patch).transpose(0, 3, 1, 4, 2, 5)
    rest = cfg.vision.image_size - side * patch
    return np.pad(cut.reshape(-1, channels, side * patch, side * patch),
                  ((0, 0), (0, 0), (0, rest), (0, rest)))
