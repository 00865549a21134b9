"""Plans as records: for files, scripts, and for comparing one search with the next."""

from __future__ import annotations

import dataclasses
from typing import Any

from guardjax.scale.plan import SPARE, Plan, ProgramPlan
from guardjax.train.sharding import AXES


def plan_record(plan: Plan) -> dict[str, Any]:
    """A plan as JSON has it: bytes, FLOPs and seconds of one chip, but for `flops_of_sizes`."""
    return {
        "slice": plan.slice.name, "mesh": dict(zip(AXES, plan.sizes, strict=True)),
        "batch": plan.batch, "fits": plan.fits, "spare_asked": SPARE,
        "programs": [_program(plan, each) for each in plan.programs]}


def _program(plan: Plan, each: ProgramPlan) -> dict[str, Any]:
    record = {
        "name": each.name, "memory": dataclasses.asdict(each.memory),
        "hbm": plan.slice.chip.hbm, "spare": each.memory.spare(plan.slice.chip.hbm),
        "compiled": each.cost is not None,
        "flops_of_sizes": each.floor.flops}
    if each.cost is None:
        return record
    return record | {
        "flops": each.cost.flops, "bytes": each.cost.bytes,
        "sent": dict(each.cost.collectives), "excess": each.excess,
        "seconds": {"compute": each.roofline.compute, "memory": each.roofline.memory,
                    "links": each.roofline.interconnect, "least": each.roofline.seconds,
                    "floor": each.floor_seconds(plan.slice.chip)},
        "bound_by": each.roofline.bound_by}
