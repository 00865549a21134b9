"""The rows of the SafeGuard-VL experiment: their names, order, seeds and configs."""

from __future__ import annotations

import re
from collections.abc import Sequence

from guardjax.cli import compose
from guardjax.policies import LADDER_LEVELS
from guardjax.train.config import ConfigError, RunConfig

CONFIGS = "configs/safeguard_vl"
BASE = "base"
ALGORITHMS = {"sft": "SFT", "exact": "exact expected reward", "grpo": "GRPO"}
# Rows that are compared; the first is measured, not trained.
MAIN = (BASE, "sft_l3", "exact_l3", "grpo_l3", "sft_varied", "exact_varied", "grpo_varied",
        "describe_grpo_varied")
# The algorithms of the level matrix.
MATRIX_KINDS = {"sft": "SFT", "grpo": "GRPO"}
MATRIX = tuple(f"{kind}_{level.lower()}" for kind in MATRIX_KINDS for level in LADDER_LEVELS)
# With a rationale before the verdict.
THINK = ("think_grpo_varied",)
# PolicyShiftGuard's recipe: pairs for SFT, its hinge losses on them, its pair reward for GRPO.
RIVALS = {"sft_pairs_varied": "SFT on matched pairs, varied policies",
          "bp_adapt_varied": "BP-Adapt (PolicyShiftGuard), varied policies",
          "grpo_pair_varied": "GRPO, pair reward of PolicyShiftGuard, varied policies"}
# Whose answers a report shows picture by picture.
SHOWN = (BASE, "sft_varied", "grpo_varied")
GROUPS = {"main": MAIN, "matrix": MATRIX, "think": THINK, "rivals": tuple(RIVALS),
          "all": tuple(dict.fromkeys((*MAIN, *THINK, *MATRIX)))}

SEEDS = (0, 1, 2)
# The contrast that the experiment is about gets more.
MORE_SEEDS = {"sft_varied": (0, 1, 2, 3, 4), "grpo_varied": (0, 1, 2, 3, 4)}

_LEVEL = re.compile(r"(sft|exact|grpo)_l([1-5])")


def names() -> dict[str, str]:
    """Row -> what people read, with the constant guards."""
    titles = {"always_safe": "always safe", "always_unsafe": "always unsafe", BASE: "base"}
    for kind, title in ALGORITHMS.items():
        for level in LADDER_LEVELS:
            titles[f"{kind}_{level.lower()}"] = f"{title}, one policy ({level})"
        titles[f"{kind}_varied"] = f"{title}, varied policies"
    return titles | {"describe_grpo_varied": "describe, then GRPO, varied policies",
                     "think_grpo_varied": "GRPO with rationale, varied policies"} | RIVALS


def chosen_rows(words: Sequence[str]) -> list[str]:
    """Rows and names of groups ("main", "think", "matrix", "rivals", "all"), to rows, each once."""
    return list(dict.fromkeys(row for word in words for row in GROUPS.get(word, (word,))))


def seeds_of(row: str, asked: Sequence[int] | None = None) -> tuple[int, ...]:
    """The seeds of a row; the base has no training and so no seeds but 0."""
    if row == BASE:
        return (0,)
    return tuple(asked) if asked else MORE_SEEDS.get(row, SEEDS)


def load_row(
    row: str, seed: int, overrides: Sequence[str] = (), configs: str = CONFIGS
) -> RunConfig:
    """The config of a row with one seed.

    A row of the level matrix without a file of its own, such as "sft_l2", is the file of level 3
    with its policy replaced. An override `stages.*.KEY=VALUE` is for every stage.

    Raises:
      ConfigError: there is no such row, or an override is wrong.
    """
    level = _LEVEL.fullmatch(row)
    file, own = row, []
    if level and level[2] != "3":
        file, own = f"{level[1]}_l3", [f"name={row}", f"stages.0.policies=L{level[2]}"]
    try:
        path = f"{configs}/{file}.py"
        num_stages = len(compose.load_config(path, own).stages)
        return compose.load_config(
            path, [*own, *_for_all_stages(overrides, num_stages), f"seed={seed}"])
    except ConfigError as error:
        raise ConfigError(f"row {row!r}: {error}") from None


def _for_all_stages(overrides: Sequence[str], num_stages: int) -> list[str]:
    """`stages.*.steps=4` stands for one override a stage, since rows differ in their stages."""
    return [override.replace("stages.*.", f"stages.{stage}.", 1) for override in overrides
            for stage in range(num_stages if override.startswith("stages.*.") else 1)]
