"""The five-level ladder of policies, after the themes of SafeEditBench (arXiv 2603.01228).

The themes are the paper's, the rules and words are ours. L2 to L4 are nested: whatever violates
one violates the next. L1 and L5 go against expectation: L1 permits every harm below a heap that
no ordinary picture shows (no positives, so it is scored by accuracy), and L5 bans harmless things
while it allows weapons and fire. The ladder is for evaluation and never in the training splits.
"""

from __future__ import annotations

import functools
import importlib.resources
from collections.abc import Mapping
from types import MappingProxyType

from guardjax.policies.policy import Policy
from guardjax.policies.yaml_io import parse_policy

LADDER_LEVELS: tuple[str, ...] = ("L1", "L2", "L3", "L4", "L5")


@functools.cache
def load_ladder() -> Mapping[str, Policy]:
    """The five policies by level, L1 to L5. Raises `PolicyError` if the package data is broken."""
    folder = importlib.resources.files("guardjax.policies") / "ladder"
    ladder = {}
    for level in LADDER_LEVELS:
        file = folder / f"{level}.yaml"
        ladder[level] = parse_policy(file.read_text(encoding="utf-8"), f"ladder/{level}.yaml")
    return MappingProxyType(ladder)
