"""A side in a process of its own, which takes a step when it is told to. It inherits our core."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

ROOT = pathlib.Path(__file__).parents[1]
ONE_THREAD = {
    "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
    "JAX_PLATFORMS": "cpu", "HF_HUB_OFFLINE": "1"}


class Worker:
    """`python -m step_parts.NAME ARGUMENTS` under `turns.Turns`."""

    def __init__(self, python: str, module: str, arguments: Sequence[str],
                 environment: Mapping[str, str] = ONE_THREAD) -> None:
        self._name, self._errors = module, tempfile.TemporaryFile("w+")
        own = {name: value for name, value in os.environ.items()
               if module.endswith("ours") or name != "PYTHONPATH"}
        self._process = subprocess.Popen(
            [python, "-m", module, *arguments], cwd=ROOT, env=own | dict(environment),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True)
        self.facts = self._read()

    def turn(self) -> dict[str, Any]:
        """One step, and what it cost.

        Raises:
          RuntimeError: the process is gone; its last words are in the message.
        """
        try:
            self._process.stdin.write("step\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass        # it left: `_read` says why
        return self._read()

    def close(self) -> None:
        """Sends it home and waits until it is gone."""
        self._process.stdin.close()
        try:
            self._process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._errors.close()

    def _read(self) -> dict[str, Any]:
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            self._errors.seek(0)
            raise RuntimeError(f"{self._name} ended with status {self._process.returncode}: "
                               f"{self._errors.read()[-2000:]}")
        return json.loads(line)
