"""How a process joins the others of its run, and leaves them.

All of it is `jax.distributed`. Three ways in: addresses given by hand; `auto`, where JAX asks the
cluster (Cloud TPU slices, GKE, Slurm, Open MPI, Kubernetes jobs); and none, for one process. Before
JAX waits for them, a roll call says who is missing, if anybody is.

A process that dies is missed by its heartbeat: within `HEARTBEAT_SECONDS` and a few more the others
are ended by JAX with a line that names it, wherever they wait.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Mapping

import jax

from guardjax.train.cluster import Processes, find_cluster
from guardjax.train.roll_call import RollCallError, roll_call

HEARTBEAT_SECONDS = 30
_LEAVE_SECONDS = 20     # for the others to leave, too

# Number of processes that a launcher started, by the variable in which it says so.
_LAUNCHERS = {"SLURM_NTASKS": "SLURM_PROCID", "OMPI_COMM_WORLD_SIZE": "OMPI_COMM_WORLD_RANK"}
_TPU_HOSTS = ("TPU_PROCESS_ADDRESSES", "TPU_WORKER_HOSTNAMES")


class JoinError(ValueError):
    """The processes cannot be joined as the command line says."""


@dataclasses.dataclass(frozen=True)
class Join:
    """What the command line says of the other processes."""

    distributed: str | None = None      # "auto", "off", or None: not said
    coordinator: str | None = None      # host:port of process 0
    num_processes: int | None = None
    process_id: int | None = None
    seconds: int = 300                  # to wait for the others

    def __post_init__(self) -> None:
        given = {"--coordinator": self.coordinator, "--num-processes": self.num_processes,
                 "--process-id": self.process_id}
        missing = [name for name, value in given.items() if value is None]
        if not missing and self.distributed == "off":
            raise JoinError("--distributed off and --coordinator contradict each other")
        if 0 < len(missing) < 3:
            raise JoinError(f"{' and '.join(missing)} must be given too: an address by hand needs "
                            "--coordinator HOST:PORT, --num-processes and --process-id")
        if missing:
            return
        host, _, port = self.coordinator.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
            raise JoinError(f"--coordinator {self.coordinator!r} is not HOST:PORT")
        if not 0 <= self.process_id < self.num_processes:
            raise JoinError(f"--process-id {self.process_id} is not from 0 to "
                            f"{self.num_processes - 1} (--num-processes {self.num_processes})")


@contextlib.contextmanager
def joined(join: Join) -> Iterator[None]:
    """While the block is open, this process is one of the run's. Before any array is made.

    Leaving is timed: let all processes end together (`hosts.together`), and say in the block what
    went wrong in it, since JAX may end a process whose peers are gone.

    Raises:
      JoinError: `auto` where JAX finds no cluster, or one that does not say enough; or nothing was
        said, and the environment is that of one of several processes.
      RollCallError: processes are missing, or disagree on their numbers.
      OSError: process 0 cannot listen on its port.
    """
    if join.coordinator is None and join.distributed != "auto":
        if join.distributed is None:
            _check_alone(os.environ)
        yield
        return
    _configure()
    options = {"initialization_timeout": join.seconds,
               "heartbeat_timeout_seconds": HEARTBEAT_SECONDS,
               "shutdown_timeout_seconds": _LEAVE_SECONDS}
    found = (_found(join.seconds) if join.coordinator is None else
             Processes(join.coordinator, join.num_processes, join.process_id))
    try:
        if found.num_processes > 1:
            roll_call(found.address, found.num_processes, found.process_id, join.seconds)
    except RollCallError as error:
        if join.coordinator is not None:
            raise
        raise RollCallError(
            f"--distributed auto found {found.num_processes} processes, of which this is number "
            f"{found.process_id}, and number 0 at {found.address}: {error}. If that is not what "
            "was started, give --coordinator, --num-processes and --process-id") from error
    jax.distributed.initialize(
        found.address, found.num_processes, found.process_id, found.local_devices,
        cluster_detection_method="deactivate", **options)
    if jax.default_backend() == "cpu" and jax.process_count() > 1:
        # There only process 0 finds programs in the cache. The others compile, and gloo gives them
        # 30 seconds to come to the first collective.
        jax.config.update("jax_enable_compilation_cache", False)
    try:
        yield
    finally:
        # Fails where others are gone; what ended this process has been said.
        with contextlib.suppress(jax.errors.JaxRuntimeError):
            jax.distributed.shutdown()


def _configure() -> None:
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    # It would take SIGTERM away from `preemption.StopSignal`; `hosts.StopVote` agrees instead.
    jax.config.update("jax_enable_preemption_service", False)


def _found(seconds: int) -> Processes:
    fix = ("Give --coordinator HOST:PORT, --num-processes and --process-id, or --distributed off "
           "to train alone")
    try:
        found = find_cluster(seconds)
    except (RuntimeError, ValueError, OSError) as error:
        raise JoinError("--distributed auto: JAX finds a cluster that does not say which processes "
                        f"there are: {error}. {fix}") from error
    if found is None:
        raise JoinError("--distributed auto: JAX finds no cluster here (it knows Cloud TPU, GKE, "
                        f"Slurm, Open MPI and Kubernetes jobs). {fix}")
    return found


def _check_alone(environment: Mapping[str, str]) -> None:
    """That no launcher started several processes, each of which would train for itself."""
    counts = {name: environment.get(name, "") for name in _LAUNCHERS if
              environment.get(_LAUNCHERS[name])}
    counts |= {name: str(len(environment[name].split(","))) for name in _TPU_HOSTS
               if environment.get(name)}
    for name, count in counts.items():
        if count.isdecimal() and int(count) > 1:
            raise JoinError(
                f"this is one of {count} processes ({name}), and each would train for itself in "
                "the same folder: add --distributed auto to train together, or --distributed off")
