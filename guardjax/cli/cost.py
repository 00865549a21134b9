"""What training a row cost: pictures, labels, tokens, steps, time; so that rows can be matched."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import pathlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from guardjax.atomic import write_text
from guardjax.data.sources import IN_WORDS
from guardjax.train.config import EXAMPLE_KINDS, LABELLED, RunConfig, StageConfig
from guardjax.train.jsonl import JsonLinesFile, read_jsonl
from guardjax.train.metrics import METRICS_FILE, read_metrics

COST_FILE = "cost.json"
ATTEMPTS_FILE = "attempts.jsonl"
HEAD = ("Row", "Seed", "Steps", "Pictures", "Labels", "Tokens", "CPU s", "Wall s")

_PICTURED = tuple(kind for kind in EXAMPLE_KINDS if kind not in IN_WORDS)
# Mean tokens of an answer, by the kind of the stage: what it samples, is taught, or scores.
_TOKENS = {"grpo": "rollout/tokens", "sft": "sft/tokens", "bp_adapt": "sft/tokens",
           "exact": "exact/tokens"}


@dataclasses.dataclass(frozen=True)
class Cost:
    """Sums over the stages of one run. `tokens` are generated (GRPO), supervised (SFT) or scored
    (exact); None where a stage does not say. With a mixture of labelled and other examples
    `pictures` and `labels` are the expected numbers."""

    steps: int
    pictures: int
    labels: int
    tokens: int | None
    cpu_seconds: float
    wall_seconds: float

    def cells(self, row: str, seed: int) -> tuple[str, ...]:
        """The line of a table under `HEAD`."""
        numbers = [f"{value:,}" if value is not None else "–"
                   for value in (self.steps, self.pictures, self.labels, self.tokens)]
        return (row, str(seed), *numbers, f"{self.cpu_seconds:,.0f}", f"{self.wall_seconds:,.0f}")


@contextlib.contextmanager
def timed(folder: pathlib.Path) -> Iterator[None]:
    """Adds the block's CPU time (all threads) and wall time to the folder's attempts.

    Also when the block is left by an exception, so that the cost of a run that was interrupted
    is that of all its attempts.
    """
    cpu, wall = time.process_time(), time.monotonic()
    try:
        yield
    finally:
        folder.mkdir(parents=True, exist_ok=True)
        JsonLinesFile(folder / ATTEMPTS_FILE).append({
            "cpu_seconds": time.process_time() - cpu, "wall_seconds": time.monotonic() - wall})


def cost_of(run: RunConfig, folder: pathlib.Path) -> Cost:
    """The cost of a finished run, from its config, its metrics and its attempts."""
    attempts = read_jsonl(folder / ATTEMPTS_FILE)
    lines = read_metrics(folder / METRICS_FILE)
    parts, start = [], 0
    for stage in run.stages:
        own = [line for line in lines if line["stage"] == stage.name]
        parts.append(_stage_cost(stage, own, start))
        start += stage.steps
    pictures, labels, tokens = zip(*parts, strict=True)
    return Cost(
        steps=sum(stage.steps for stage in run.stages), pictures=round(sum(pictures)),
        labels=round(sum(labels)), tokens=None if None in tokens else round(sum(tokens)),
        cpu_seconds=sum(attempt["cpu_seconds"] for attempt in attempts),
        wall_seconds=sum(attempt["wall_seconds"] for attempt in attempts))


def save_cost(folder: pathlib.Path, cost: Cost) -> None:
    """Writes `cost.json`; its presence says that training is finished."""
    write_text(folder / COST_FILE, json.dumps(dataclasses.asdict(cost), indent=1) + "\n")


def load_cost(folder: pathlib.Path) -> Cost | None:
    """What `save_cost` wrote, or None where training is not finished."""
    path = folder / COST_FILE
    return Cost(**json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None


def _stage_cost(
    stage: StageConfig, lines: Sequence[Mapping[str, Any]], start: int
) -> tuple[float, float, float | None]:
    """(pictures, labels, tokens) of a stage, whose lines are means over windows of steps."""
    key = _TOKENS.get(stage.kind, "")
    group = stage.rl.group_size if stage.kind == "grpo" else 1
    prompts, tokens, before = 0.0, 0.0, start
    for line in lines:
        # Dynamic sampling draws more prompts than it updates on; their labels are seen as well.
        drawn = (line["step"] - before) * line.get("dynamic/drawn", stage.batch)
        prompts += drawn
        if tokens is not None:
            tokens = None if line.get(key) is None else tokens + drawn * group * line[key]
        before = line["step"]
    pictures, labels = (
        prompts * sum(stage.data.get(kind, 0.0) for kind in kinds) / sum(stage.data.values())
        for kinds in (_PICTURED, LABELLED))
    return pictures, labels, tokens
