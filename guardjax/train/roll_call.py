"""Who is missing: processes report to process 0 before JAX's own start, which cannot say it.

`jax.distributed.initialize` waits for all processes, and where one never comes it ends the program
with a stack trace that names none. So for a moment process 0 listens on the coordinator's port;
each process says its number and how many there should be, and all are let go when all are there.
"""

from __future__ import annotations

import contextlib
import socket
import time

_RETRY_SECONDS = 0.2


class RollCallError(RuntimeError):
    """Processes are missing, or two of them disagree on who they are."""


def roll_call(address: str, num_processes: int, process_id: int, seconds: float) -> None:
    """Returns when all processes have reported to process 0 at `address` ("host:port").

    Raises:
      RollCallError: on every process that can be told, naming those that are missing after
        `seconds`, a number that came twice, or another count of processes.
      OSError: process 0 cannot listen there.
    """
    deadline = time.monotonic() + seconds
    host, _, port = address.rpartition(":")
    if process_id == 0:
        problem = _answer(int(port), num_processes, deadline, seconds)
    else:
        problem = _report(host.strip("[]"), int(port), num_processes, process_id, deadline)
    if problem:
        raise RollCallError(problem)


def _answer(port: int, count: int, deadline: float, seconds: float) -> str:
    """Process 0: waits for everybody, tells everybody; returns the problem, or ""."""
    dual = socket.has_dualstack_ipv6()
    here: dict[int, socket.socket] = {}
    problem = ""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.create_server(
            ("", port), family=socket.AF_INET6 if dual else socket.AF_INET, dualstack_ipv6=dual))
        callers = []
        while len(here) < count - 1 and not problem:
            server.settimeout(max(deadline - time.monotonic(), 0.001))
            try:
                caller = stack.enter_context(server.accept()[0])
                caller.settimeout(max(deadline - time.monotonic(), 0.001))
                words = caller.makefile("rb").readline(100).split()
            except TimeoutError:
                missing = sorted(set(range(1, count)) - set(here))
                problem = (f"{_names(missing)} of {count} did not start within {seconds:g} s: see "
                           "their logs, or give more time by --join-seconds")
                break
            if len(words) != 3 or words[0] != b"guardjax":
                continue        # somebody else who knocks at a port
            callers.append(caller)
            number, wanted = int(words[1]), int(words[2])
            if wanted != count:
                problem = (f"process {number} was started with --num-processes {wanted}, and "
                           f"process 0 with {count}: all must be given the same")
            elif number in here or not 0 < number < count:
                problem = (f"two processes were started with --process-id {number}: each needs "
                           f"its own, from 0 to {count - 1}")
            here[number] = caller
        for caller in callers:
            with contextlib.suppress(OSError):      # it may be gone again
                caller.sendall(problem.encode() + b"\n")
                caller.shutdown(socket.SHUT_WR)
                caller.settimeout(1.0)
                caller.recv(1)      # its end first: the port is then free at once
    return problem


def _report(host: str, port: int, count: int, number: int, deadline: float) -> str:
    """Another process: reports and waits for the answer; returns the problem, or ""."""
    failure: Exception | None = None
    while time.monotonic() < deadline:
        try:
            with socket.create_connection((host, port), timeout=5.0) as caller:
                caller.settimeout(max(deadline - time.monotonic(), 0.0) + 5.0)
                caller.sendall(f"guardjax {number} {count}\n".encode())
                answer = caller.makefile("rb").readline()
                if answer.endswith(b"\n"):
                    return answer.decode().strip()
                failure = ConnectionError("it hung up")
        except OSError as error:
            failure = error
        time.sleep(_RETRY_SECONDS)
    return (f"process {number}: no answer from process 0 at {host}:{port} ({failure}); was it "
            "started, and is the port open between the hosts?")


def _names(processes: list[int]) -> str:
    return f"process{'es' * (len(processes) > 1)} {', '.join(map(str, processes))}"
