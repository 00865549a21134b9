"""What JAX finds out about the processes of a cluster, before it makes them wait for each other.

`jax.distributed.initialize` finds and joins in one go, so that nobody could be missed by name (see
`roll_call.py`). It has no public way to find alone; this file is the only one that reaches behind
its back for it, and asks as it asks itself.
"""

from __future__ import annotations

import dataclasses
import os

from jax._src.clusters import ClusterEnv


@dataclasses.dataclass(frozen=True)
class Processes:
    """Where process 0 of a run is, how many there are, and which one this is."""

    address: str                # host:port of process 0
    num_processes: int
    process_id: int
    local_devices: tuple[int, ...] | None = None    # which of the host's are this one's; None: all


def find_cluster(seconds: int) -> Processes | None:
    """What the cluster says (Cloud TPU, GKE, Slurm, Open MPI, Kubernetes); None without one.

    `JAX_COORDINATOR_ADDRESS`, `JAX_COORDINATOR_PORT` and `JAX_LOCAL_DEVICE_IDS` go before it.

    Args:
      seconds: to wait until the name of process 0's host is known.

    Raises:
      RuntimeError, ValueError, OSError: there is one, and it does not say what is needed.
    """
    devices = os.environ.get("JAX_LOCAL_DEVICE_IDS")
    address, number, process, devices = ClusterEnv.auto_detect_unset_distributed_params(
        os.environ.get("JAX_COORDINATOR_ADDRESS"), None, None,
        [int(device) for device in devices.split(",")] if devices else None, None, seconds)
    if address is None or number is None or process is None:
        return None
    return Processes(address, number, process, None if devices is None else tuple(devices))
