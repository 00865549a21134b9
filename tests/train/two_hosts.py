"""One of two processes that tell each other things; prints what it was told as JSON.

    python -m tests.train.two_hosts HOST:PORT ID
"""

from __future__ import annotations

import json
import sys
from typing import Any

import jax
import numpy as np

from guardjax.train import hosts
from guardjax.train.agreement import DisagreementError, check_agreement
from guardjax.train.config import MeshConfig
from guardjax.train.join import Join, joined
from guardjax.train.sharding import Placement, make_mesh

FACTS = {"config": "c0", "base": "b0"}


def told(process: int) -> dict[str, Any]:
    """What this process hears, call by call."""
    out: dict[str, Any] = {"first": hosts.is_first(), "devices": jax.device_count()}
    check_agreement(FACTS)
    try:
        check_agreement(FACTS | {"base": f"b{process}"})
    except DisagreementError as error:
        out["disagree"] = str(error)
    out["texts"] = hosts.gather_texts("é" * process)

    def work() -> int:
        if process == 1:
            raise ValueError("no such file on this host")
        return 7

    try:
        hosts.together(work)
    except (hosts.PeerError, ValueError) as error:
        out["failed"] = [type(error).__name__, str(error)]
    out["together"] = hosts.together(lambda: process)

    placement = Placement(make_mesh(MeshConfig(data=2, fsdp=4, rules="fsdp")), "fsdp")
    rows = placement.rows(16)
    whole = np.random.default_rng(0).normal(size=(16, 3))
    out["rows"] = [rows.start, rows.stop]
    out["exact"] = bool((hosts.gather_rows(whole[rows], rows, 16) == whole).all())
    batch = placement.put_batch({"x": placement.own(whole.astype(np.float32))})
    out["batch"] = bool((hosts.fetch(batch)["x"] == whole.astype(np.float32)).all())
    kernel = placement.put({"kernel": whole[:8].astype(np.float32).repeat(64, 1),
                            "key": jax.random.key(3)})
    out["shard"] = kernel["kernel"].addressable_shards[0].data.shape
    found = hosts.fetch_on_first({"kernel": kernel["kernel"]})["kernel"]
    out["kept"] = None if found is None else float(np.abs(found).sum())
    out["key"] = int(jax.random.randint(jax.random.fold_in(kernel["key"], 1), (), 0, 1000))

    vote = hosts.StopVote()
    out["votes"] = [vote.cast(15 if (process, step) == (1, 1) else None) for step in range(3)]
    return out


def main() -> None:
    """Joins, asks, leaves."""
    address, process = sys.argv[1], int(sys.argv[2])
    with joined(Join(None, address, 2, process, seconds=60)):
        out = told(process)
    print("\n" + json.dumps(out), flush=True)


if __name__ == "__main__":
    main()
