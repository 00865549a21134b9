"""Starting the processes of a run on this machine."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence

ROOT = pathlib.Path(__file__).resolve().parents[2]
DEVICES = 8     # of all processes together


@dataclasses.dataclass(frozen=True)
class Ended:
    """How a process ended."""

    status: int
    output: str         # stdout and stderr
    seconds: float      # after the first of all processes had ended


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def environment(processes: int, changes: Mapping[str, str] = {}) -> dict[str, str]:
    """Variables of one of so many processes, which share eight CPU devices."""
    return os.environ | {
        "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT), "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
        # Eight devices on a busy core may take their time to meet.
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={DEVICES // processes} "
                     "--xla_cpu_collective_call_terminate_timeout_seconds=600"} | changes


def run_all(commands: Sequence[Sequence[str]], folder: pathlib.Path, limit: float = 600,
            **changes: str) -> list[Ended]:
    """Runs `python COMMAND` for each process at once; waits until all have ended.

    Raises:
      TimeoutError: with the outputs, if they take longer than `limit` seconds.
    """
    env = environment(len(commands), changes)
    files = [folder / f"process_{i}.log" for i in range(len(commands))]
    running = []
    for command, file in zip(commands, files, strict=True):
        with open(file, "wb") as output:
            running.append(subprocess.Popen([sys.executable, *command], env=env, stdout=output,
                                            stderr=subprocess.STDOUT))
    ended: dict[int, float] = {}
    deadline = time.monotonic() + limit
    try:
        while len(ended) < len(running):
            for i, process in enumerate(running):
                if i not in ended and process.poll() is not None:
                    ended[i] = time.monotonic()
            if time.monotonic() > deadline:
                raise TimeoutError("\n".join(file.read_text()[-2000:] for file in files))
            time.sleep(0.05)
    finally:
        for process in running:
            process.kill()
            process.wait()
    return [Ended(process.returncode, file.read_text(errors="replace"),
                  ended[i] - min(ended.values()))
            for i, (process, file) in enumerate(zip(running, files, strict=True))]


def numbered(command: Sequence[str], processes: int) -> list[list[str]]:
    """The command of each process, with the address of process 0 and its own number."""
    if processes == 1:
        return [list(command)]
    address = f"127.0.0.1:{free_port()}"
    return [[*command, "--coordinator", address, "--num-processes", str(processes),
             "--process-id", str(i)] for i in range(processes)]
