"""All processes of a run must be about to do the same: config, code, model, world."""

from __future__ import annotations

import functools
import hashlib
import pathlib
from collections.abc import Mapping

import jax
import numpy as np

import guardjax
from guardjax.train import hosts
from guardjax.train.workdir import CONFIG_FILE

# What to do about a fact that differs.
_FIXES = {
    "config": "give every process the same config file and the same KEY=VALUE",
    "code": "install the same guardjax on every host",
    "jax": "install the same jax on every host",
    "base": "copy the same model to every host",
    "tokenizer": "copy the same model to every host",
    "rewards": "copy the same reward file to every host",
    "world": "remove the world of that host and build it again, from the same packages",
}


class DisagreementError(ValueError):
    """Processes were started with different configs, code, models or data."""


@functools.cache
def code_version() -> str:
    """Version and hash of guardjax's own source: editable checkouts have one version number."""
    root = pathlib.Path(guardjax.__file__).parent
    digest = hashlib.sha256()
    for file in sorted(root.rglob("*.py")):
        digest.update(str(file.relative_to(root)).encode() + b"\0" + file.read_bytes())
    return f"{guardjax.__version__}+{digest.hexdigest()[:12]}"


def check_shared(folder: pathlib.Path) -> None:
    """Checks that this process sees the run's folder, which process 0 has just claimed.

    Raises:
      DisagreementError: it does not.
    """
    if not (folder / CONFIG_FILE).is_file():
        raise DisagreementError(
            f"{folder} is not one folder for all processes: process {jax.process_index()} does not "
            "see what process 0 has written there; use a shared file system")


def check_agreement(facts: Mapping[str, str]) -> None:
    """Compares facts of the same names with process 0's; "code" and "jax" are added.

    Raises:
      DisagreementError: on every process, naming who differs from process 0, and in what.
    """
    if hosts.num_processes() == 1:
        return
    facts = dict(facts) | {"code": code_version(), "jax": jax.__version__}
    names = sorted(facts)
    own = np.stack([np.frombuffer(hashlib.sha256(facts[name].encode()).digest(), np.uint8)
                    for name in names])
    everyone = hosts.gather_arrays(own)              # [processes, facts, 32]
    same = (everyone == everyone[:1]).all(-1)
    if same.all():
        return
    lines = []
    for i, name in enumerate(names):
        if others := np.flatnonzero(~same[:, i]).tolist():
            said = hosts.gather_texts(facts[name])
            lines.append(f"{name}: process 0 has {said[0]}, " + ", ".join(
                f"process {other} {said[other]}" for other in others)
                + f"; {_FIXES.get(name, 'make it the same everywhere')}")
    raise DisagreementError("the processes of this run disagree:\n" + "\n".join(lines))
