"""How a verb computes: the flags that say it, the same for every verb that runs a model."""

from __future__ import annotations

import argparse


def add_compute_flags(parser: argparse._ActionsContainer) -> None:
    """Adds `--dtype` and `--attention`."""
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"),
                        help="compute type (default: float32)")
    parser.add_argument("--attention", default="xla", metavar="NAME",
                        help="back end of attention: xla, cudnn (NVIDIA GPU, bfloat16), splash "
                             "(TPU) or auto, the kernel of the platform if it can (default: xla)")
