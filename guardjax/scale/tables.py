"""Plans as tables: what people read before they ask for a slice."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from guardjax.scale.plan import SPARE, Plan, ProgramPlan
from guardjax.train.sharding import AXES

_UNITS = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


def memory_table(plans: Sequence[Plan]) -> Table:
    """A line for each program on each slice: bytes a chip, and whether they fit."""
    table = Table(title="Memory of one chip", caption_justify="left", caption=(
        "Arguments: parameters, optimiser and batch. Temporary: what the program needs beside "
        "them, gradients and gathered weights among it. Peak: both, and results and code. HBM: "
        f"what a program may use. Fits: at least {SPARE:.0%} of it is left. Not asked: what it is "
        "given (of an update also its gradients), or a sister program, does not fit for sure."))
    for head in ("Slice", "Mesh", "Prompts", "Program", "Arguments", "Temporary", "Peak", "HBM",
                 "Spare", "Fits", "Compiled in"):
        table.add_column(head, justify="left" if head in ("Slice", "Mesh", "Program") else "right")
    for plan in plans:
        table.add_section()
        for each in plan.programs:
            spare = each.memory.spare(plan.slice.chip.hbm)
            peak, asked = _bytes(each.memory.peak), bool(each.memory.seconds)
            if not asked:       # a bound from below: it tells what does not fit, never what does
                peak = f"> {peak}"
            table.add_row(
                plan.slice.name, mesh_words(plan), str(plan.batch), each.name,
                _bytes(each.memory.arguments),
                _bytes(each.memory.temporaries),
                peak, _bytes(plan.slice.chip.hbm), f"{spare:.0%}" if asked else "–",
                "no" if spare < SPARE else "yes" if asked else "–",
                f"{each.memory.seconds:.0f} s" if asked else "not asked")
    return table


def work_table(plans: Sequence[Plan]) -> Table:
    """A line for each program that compiled: the work of a chip, and the least time it takes."""
    table = Table(title="Work of one chip, and the least time it takes", caption_justify="left",
                  caption=(
        "Against sizes: FLOPs beyond those that the model's sizes ask for. Moved: bytes to and "
        "from HBM. Sent: bytes to other chips. Compute, memory, links: what each of the three "
        "takes at its published peak; the slowest is the least time, a bound and no prediction. "
        "FLOP floor: the share of it that FLOPs without recomputation would take. A sampled "
        "answer is as long as it may be. Kernels of attention (splash) count as the blocks that "
        "they visit, whole, and at most what they read of them."))
    for head in ("Slice", "Program", "TFLOP", "Against sizes", "Moved", "Sent", "Compute",
                 "Memory", "Links", "Least time", "Bound by", "FLOP floor"):
        table.add_column(head, justify="left" if head in ("Slice", "Program") else "right")
    for plan in plans:
        for each in plan.programs:
            if each.cost is not None:
                table.add_row(plan.slice.name, each.name, *_work(plan, each))
    return table


def _work(plan: Plan, each: ProgramPlan) -> tuple[str, ...]:
    cost, bound = each.cost, each.roofline
    floor = each.floor_seconds(plan.slice.chip)
    return (f"{cost.flops / 1e12:,.4g}", f"{each.excess:+.1%}", _bytes(cost.bytes),
            _bytes(cost.sent), _seconds(bound.compute), _seconds(bound.memory),
            _seconds(bound.interconnect), _seconds(bound.seconds), bound.bound_by,
            f"{bound.flop_share(floor):.0%}")


def sent_table(plans: Sequence[Plan]) -> Table:
    """A line for each program that compiled: bytes a chip sends, by kind of collective."""
    kinds = sorted({kind for plan in plans for each in plan.programs if each.cost
                    for kind in each.cost.collectives})
    table = Table(title="Sent by one chip, by kind of collective")
    for head in ("Slice", "Program", *kinds):
        table.add_column(head, justify="left" if head in ("Slice", "Program") else "right")
    for plan in plans:
        for each in plan.programs:
            if each.cost is not None:
                table.add_row(plan.slice.name, each.name, *(
                    _bytes(each.cost.collectives.get(kind, 0)) for kind in kinds))
    return table


def mesh_words(plan: Plan) -> str:
    """The mesh's axes that are larger than one: "fsdp=8, tensor=2"."""
    return ", ".join(f"{axis}={size}" for axis, size in zip(AXES, plan.sizes, strict=True)
                     if size > 1) or "one chip"


def _bytes(size: float | None) -> str:
    if size is None:
        return "–"
    unit = next((unit for unit in ("GiB", "MiB") if size >= _UNITS[unit]), "KiB")
    return f"{size / _UNITS[unit]:,.2f} {unit}"


def _seconds(value: float) -> str:
    return f"{value:.2f} s" if value >= 1 else f"{value * 1e3:.3g} ms"
