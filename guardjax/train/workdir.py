"""A run's folder belongs to one config and one starting model; others are refused, and told why."""

from __future__ import annotations

import dataclasses
import difflib
import json
import os
import pathlib
import re
from collections.abc import Sequence

from guardjax.atomic import write_text
from guardjax.train.disk import explain_full_disk

CONFIG_FILE = "config.txt"
BASE_FILE = "base.json"

# They change how a run is carried out, not what it computes. An engine that was lost may come back
# at another place. Padding is masked; a run that met a longer text goes on with larger lengths.
MAY_DIFFER = ("checkpoint.", "mesh.", "lengths.", "guard.hang_", "log.peak_flops",
              "log.tensorboard", "log.wandb_")
# What a claim's text says below the config, of files that the config names.
POLICY_FILE, DATASET_ROWS = "policy file", "dataset rows"
_OF_ENGINE = re.compile(r"stages\.\d+\.rl\.engine_")


class WorkdirError(RuntimeError):
    """The folder holds a run of another config, or one that started from another model."""


@dataclasses.dataclass(frozen=True)
class Claim:
    """What a run's folder belongs to."""

    config_text: str                # the resolved config, `config.to_text(run)`, and what the
                                    # files are that it names
    base: str                       # what tells the starting model from others: a weights hash


def check_workdir(path: str | os.PathLike[str], claim: Claim, *,
                  may_differ: Sequence[str] = MAY_DIFFER) -> pathlib.Path:
    """Returns the folder if it is this run's or nobody's yet. Nothing is written.

    Lines of the config that start with one of `may_differ` may change from one start to the next,
    and so may how an engine is reached (`rl.engine_url` and its like).

    Raises:
      WorkdirError: the folder is another config's (with a unified diff), or the run in it started
        from another model (with both hashes).
      NotADirectoryError: there is a file in its place.
    """
    folder = pathlib.Path(path).absolute()
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"{folder} is a file; choose another folder")
    kept = folder / CONFIG_FILE
    if not kept.exists():
        return folder
    old, new = (fixed_lines(text, may_differ)
                for text in (kept.read_text("utf-8"), claim.config_text))
    if old != new:
        diff = "\n".join(difflib.unified_diff(old, new, str(kept), "this run", n=0, lineterm=""))
        raise WorkdirError(f"{folder} holds a run of another config; choose another folder, "
                           f"or go back to the old config:\n{diff}")
    base = kept_base(folder)
    if base != claim.base:
        raise WorkdirError(
            f"{folder} holds a run that started from the model {base or 'unknown'}, and the model "
            f"to start from is {claim.base} now; remove the folder to train again, choose another "
            "one, or go back to the old model")
    return folder


def claim_workdir(path: str | os.PathLike[str], claim: Claim, *,
                  may_differ: Sequence[str] = MAY_DIFFER) -> pathlib.Path:
    """Returns the folder, made if need be, as this run's from now on.

    A run that may still be refused for its config calls `check_workdir`, so that the corrected
    config finds the folder free.

    Raises:
      WorkdirError, NotADirectoryError: as `check_workdir`.
      DiskFullError: the folder is nobody's still.
    """
    folder = check_workdir(path, claim, may_differ=may_differ)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / BASE_FILE, json.dumps({"base": claim.base}) + "\n")
    write_atomically(folder / CONFIG_FILE, claim.config_text)   # last: it makes the claim
    return folder


def release_workdir(folder: pathlib.Path) -> None:
    """Makes the folder nobody's again, for a run that kept nothing in it."""
    (folder / CONFIG_FILE).unlink(missing_ok=True)


def kept_base(folder: pathlib.Path) -> str | None:
    """The starting model of the run in the folder; None where there is no run, or no telling."""
    path = folder / BASE_FILE
    if not (folder / CONFIG_FILE).is_file() or not path.is_file():
        return None
    return json.loads(path.read_text("utf-8"))["base"]


def write_atomically(path: pathlib.Path, text: str) -> None:
    """`guardjax.atomic.write_text`, with a full disk explained."""
    with explain_full_disk(path):
        write_text(path, text)


def config_lines(text: str) -> str:
    """Of a claim's text the config alone, for `config.from_text`."""
    return "".join(line for line in text.splitlines(keepends=True)
                   if not line.startswith((POLICY_FILE, DATASET_ROWS)))


def fixed_lines(text: str, may_differ: Sequence[str] = MAY_DIFFER) -> list[str]:
    """Lines of a config that no two starts of a run may differ in."""
    return [line for line in text.splitlines()
            if not line.startswith(tuple(may_differ)) and not _OF_ENGINE.match(line)]
