"""The lines of the step with adapters on an accelerator."""

from __future__ import annotations

import json
import pathlib
import statistics
import sys
import tempfile
from collections.abc import Iterator, Mapping

from bars import Line
from step_parts.device_shapes import RANK, TARGETS, Shape
from step_parts.worker import Worker

DECODE_BAR, UPDATE_BAR = 0.6, 0.4
# Both processes hold what they need and no more; JAX would take most of the memory at once.
ENVIRONMENT = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", "TOKENIZERS_PARALLELISM": "false",
               "HF_HUB_OFFLINE": "1"}


def of_shape(shape: Shape, peer: str | None, turns: int, held: bool) -> Iterator[Line]:
    """Lines of `turns` turns of each side; bars only if the device is to be `held` to them."""
    ours = _taken(Worker(sys.executable, "step_parts.device_ours", [shape.name], ENVIRONMENT),
                  turns)
    name = f"step/{shape.name}"
    floor = shape.step_bytes / ours["bandwidth"]
    yield Line(f"{name}_bandwidth", ours["bandwidth"] / 1e9, "GB/s_copied")
    yield Line(f"{name}_arithmetic", ours["arithmetic"] / 1e12, "TFLOP/s_multiplied")
    yield Line(f"{name}_decode_ms", 1e3 * ours["decode"], "ms_a_step")
    yield Line(f"{name}_decode", floor / ours["decode"], "x_bandwidth",
               least=DECODE_BAR if held else None)
    yield Line(f"{name}_update_seconds", ours["update"], "seconds")
    yield Line(f"{name}_update", shape.update_flops / ours["update"] / ours["arithmetic"],
               "x_arithmetic", least=UPDATE_BAR if held else None)
    theirs = {} if peer is None else _peers(shape, peer, turns)
    for part in ("decode", "update"):
        value = theirs[part] / ours[part] if theirs else None
        yield Line(f"{name}_{part}_beside", value, "x_transformers_by_hand")


def _peers(shape: Shape, peer: str, turns: int) -> Mapping[str, float]:
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        (folder / "config.json").write_text(json.dumps(shape.cfg.to_hf()))
        sizes = {field: getattr(shape, field)
                 for field in ("prompts", "group", "prompt", "tokens")}
        (folder / "shape.json").write_text(
            json.dumps(sizes | {"rank": RANK, "targets": TARGETS}))
        return _taken(Worker(peer, "step_parts.device_peer", [name], ENVIRONMENT), turns)


def _taken(side: Worker, turns: int) -> Mapping[str, float]:
    """Medians. One side after the other: both at once might not fit on the device."""
    try:
        taken = [side.turn() for _ in range(turns)]
    finally:
        side.close()
    print(f"# {', '.join(str(fact) for fact in side.facts.values())}; {turns} turns", flush=True)
    return {name: statistics.median(turn[name] for turn in taken)
            for name in taken[0] if name not in ("grown_mib",)}
