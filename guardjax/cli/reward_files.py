"""Whose code gave a run its rewards. It may be mended between two starts, and that is kept."""

from __future__ import annotations

import hashlib
import pathlib

from guardjax.train.config import RunConfig
from guardjax.train.jsonl import JsonLinesFile, read_jsonl

REWARDS_FILE = "rewards.jsonl"      # a line for every content that a start has found


def reward_files(run: RunConfig) -> dict[str, str]:
    """Hashes of the files that stages name as `rl.reward=FILE.py:NAME`, by file."""
    files = {stage.rl.reward.rpartition(":")[0] for stage in run.stages}
    return {name: hashlib.sha256(pathlib.Path(name).read_bytes()).hexdigest()
            for name in sorted(files) if name.endswith(".py")}


def changed_files(run: RunConfig, folder: pathlib.Path) -> list[str]:
    """Files that are not what they were when the run in `folder` was last started."""
    kept = folder / REWARDS_FILE
    before = read_jsonl(kept)[-1] if kept.is_file() else {}
    return [name for name, seen in reward_files(run).items() if before.get(name, seen) != seen]


def keep_reward_files(run: RunConfig, folder: pathlib.Path) -> None:
    """Writes the hashes down, unless they are those of the start before."""
    files = reward_files(run)
    kept = folder / REWARDS_FILE
    if files and (not kept.is_file() or read_jsonl(kept)[-1] != files):
        JsonLinesFile(kept).append(files)
