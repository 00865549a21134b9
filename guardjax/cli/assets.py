"""What comes with the package: the shipped models and the example pictures and policies."""

from __future__ import annotations

import importlib.resources
import pathlib

# The base that rows start from, and the row grpo_varied of seed 0 (experiments/safeguard_vl).
SHIPPED = ("base", "guard")


def asset(*parts: str) -> pathlib.Path:
    """A file or folder of `guardjax/assets`."""
    return pathlib.Path(str(importlib.resources.files("guardjax").joinpath("assets", *parts)))


def model_dir(name: str) -> pathlib.Path:
    """A model directory: "base" and "guard" come with the package, anything else is a path."""
    return asset(name) if name in SHIPPED else pathlib.Path(name)


def example_file(name: str) -> pathlib.Path:
    """One of the README's example pictures or policies."""
    return asset("examples", name)
