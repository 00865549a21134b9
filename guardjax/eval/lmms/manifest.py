"""What lmms-eval is told of us: the entry point `lmms_eval.models` (setup.py)."""

from __future__ import annotations

from lmms_eval.models.registry_v2 import ModelManifest

MANIFEST = ModelManifest("guardjax", simple_class_path="guardjax.eval.lmms.model.GuardjaxLmms")
