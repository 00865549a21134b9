"""Kills training processes with SIGKILL at random points until so many are dead; prints JSON.

    python -m tests.cli.killed_runs CONFIG FOLDER NUM_KILLS SEED

This process imports everything once and never computes; each run is a fork of it, so that a start
costs little. Every second kill waits until a checkpoint is being written. A run that ends is
compared with one that nobody killed, and the next one begins.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import random
import signal
import sys
import time

import jax

from guardjax.cli import compose, training
from guardjax.data.batching import load_batcher
from guardjax.rewards.compose import Composition, Part
from guardjax.rewards.named import COMPOSITIONS
from guardjax.train.console import RunConsole
from guardjax.train.metrics import read_metrics
from tests.cli.conftest import PROMPT_BUCKETS, letters

TORN = "checkpoints/*.orbax-checkpoint-tmp*"
LONGEST = 300.0     # seconds that a run may take


def outcome(folder: pathlib.Path) -> tuple:
    """All that a run leaves, but for what depends on the clock."""
    model = {file.name: file.read_bytes() for file in (folder / "model").iterdir()}
    logs = [read_metrics(folder / f"{name}.jsonl") for name in ("metrics", "samples", "groups")]
    return (*logs, model)


def start(config: str, folder: pathlib.Path) -> int:
    """The process id of a run in `folder`."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        log = os.open(folder.parent / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        compose.load_batcher = lambda path: dataclasses.replace(
            load_batcher(path), prompt_buckets=PROMPT_BUCKETS)
        COMPOSITIONS["letters"] = Composition((Part("letters", letters),))
        jax.config.update("jax_disable_most_optimizations", True)      # compiled often, run shortly
        run = compose.load_config(config, ["checkpoint.every_steps=2"])
        training.train(run, folder, RunConsole(run.log.every_steps))
        status = 0
    finally:
        os._exit(status)


def ended(pid: int) -> bool:
    """Whether the run is over.

    Raises:
      RuntimeError: it failed.
    """
    found, status = os.waitpid(pid, os.WNOHANG)
    if found and status:
        raise RuntimeError(f"a run ended with status {status}")
    return bool(found)


def steps_done(folder: pathlib.Path) -> int:
    """Lines of metrics in the folder."""
    file = folder / "metrics.jsonl"
    return file.read_bytes().count(b"\n") if file.is_file() else 0


def await_point(pid: int, folder: pathlib.Path, rng: random.Random, in_a_save: bool) -> bool:
    """Waits for where to kill; False if the run ended before.

    That is some steps after the run began to train, and somewhere within a step; or some saves
    later, somewhere within a save.
    """
    wanted = rng.randint(2, 4) if in_a_save else rng.randint(1, 6)
    seen, before, was = 0, steps_done(folder), bool(list(folder.glob(TORN)))
    delay, end = rng.uniform(0.0, 0.03 if in_a_save else 0.5), time.monotonic() + LONGEST
    while time.monotonic() < end:
        if ended(pid):
            return False
        now = bool(list(folder.glob(TORN))) if in_a_save else steps_done(folder)
        if in_a_save:
            seen += now and not was
        elif now != before:
            seen, before = seen + 1, now
        was = now
        if seen >= wanted:
            time.sleep(delay)
            return not ended(pid)
        time.sleep(0.001)
    raise TimeoutError(f"a run did not reach its point in {LONGEST:g} s")


def wait(pid: int) -> None:
    """Waits for the run's own end."""
    end = time.monotonic() + LONGEST
    while not ended(pid):
        if time.monotonic() > end:
            raise TimeoutError(f"a run did not end in {LONGEST:g} s")
        time.sleep(0.02)


def main() -> None:
    """Prints {"kills", "torn" (in a save), "at" (step), "runs", "equal" (of them), "resumed"}."""
    config, root, num, seed = sys.argv[1], pathlib.Path(sys.argv[2]), *map(int, sys.argv[3:])
    rng = random.Random(seed)
    wait(start(config, root / "straight" / "run"))
    straight = outcome(root / "straight" / "run")
    report = {"kills": 0, "torn": 0, "at": [], "runs": 0, "equal": 0, "resumed": 0}
    while report["kills"] < num:
        folder = root / str(report["runs"]) / "run"
        alive = True
        while alive:
            pid = start(config, folder)
            if report["kills"] == num:
                wait(pid)
                break
            alive = await_point(pid, folder, rng, in_a_save=report["kills"] % 2 == 1)
            if alive:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                report["kills"] += 1
                report["torn"] += bool(list(folder.glob(TORN)))
                report["at"].append(steps_done(folder))
        report["runs"] += 1
        said = (folder.parent / "log.txt").read_text()
        report["resumed"] += said.count("resumed at step")
        report["equal"] += outcome(folder) == straight
    print(json.dumps(report))


if __name__ == "__main__":
    main()
