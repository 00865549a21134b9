"""A workload compiled for a slice: memory, work and the least time of each of its programs."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax

from guardjax.scale.analytic import Floor, program_flops
from guardjax.scale.chips import Chip
from guardjax.scale.counts import count
from guardjax.scale.memory import Memory, compile_memory
from guardjax.scale.roofline import Cost, Roofline, roofline
from guardjax.scale.slices import Slice
from guardjax.scale.workload import Workload
from guardjax.train.stages.trained import Program
from guardjax.train.state import TrainState

SPARE = 0.05        # of a chip's memory, left for what the compiler does not see
TOLERANCE = 0.05    # of FLOPs counted in the program against those from the model's sizes


@dataclasses.dataclass(frozen=True)
class ProgramPlan:
    """One program on one slice; `cost` and `roofline` are None where it does not fit."""

    name: str
    memory: Memory
    floor: Floor
    cost: Cost | None
    roofline: Roofline | None
    num_chips: int

    def floor_seconds(self, chip: Chip) -> float:
        """What the FLOPs that the model needs take at peak, spread over all chips."""
        return self.floor.least / self.num_chips / chip.peak_flops

    @property
    def excess(self) -> float | None:
        """FLOPs in the program over those it needs, less 1: what chips repeat of each other."""
        if self.cost is None:
            return None
        return self.cost.flops * self.num_chips / self.floor.flops - 1


def argument_bytes(program: Program) -> int:
    """Bytes on one chip of what a program is given."""
    return _bytes_a_chip(program.args)


def least_bytes(program: Program) -> int:
    """Bytes on one chip below which a program cannot run: what it is given, and of an update the
    gradients too, since all are there when their norm is known."""
    state = program.args[0]
    return argument_bytes(program) + (
        _bytes_a_chip(state.params) if isinstance(state, TrainState) else 0)


def _bytes_a_chip(tree: Any) -> int:
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree) if isinstance(leaf, jax.ShapeDtypeStruct))


@dataclasses.dataclass(frozen=True)
class Plan:
    """All programs of a stage on a slice."""

    slice: Slice
    sizes: tuple[int, int, int]     # of the mesh axes data, fsdp, tensor
    batch: int                      # prompts a step
    programs: tuple[ProgramPlan, ...]

    @property
    def fits(self) -> bool:
        """Whether every program leaves `SPARE` of the memory."""
        return all(each.memory.spare(self.slice.chip.hbm) >= SPARE for each in self.programs)


def make_plan(asked: Slice, workload: Workload) -> Plan:
    """Compiles the programs of a step; nothing runs, and no array of the model's exists.

    If one of them cannot fit for sure (`least_bytes`), none is compiled.
    """
    chip, mesh, programs = asked.chip, workload.mesh, workload.programs()
    least = [least_bytes(program) for program in programs]
    plans = []
    for program, given in zip(programs, least, strict=True):
        floor = program_flops(program.jit.name, workload.stage, workload.cfg, workload.lengths)
        if max(least) > chip.hbm:   # the compiler would need minutes to say so
            plans.append(ProgramPlan(
                program.jit.name, Memory(argument_bytes(program), None, given, 0.0), floor,
                None, None, mesh.size))
            continue
        with jax.set_mesh(mesh):
            lowered = program.jit.lower(*program.args)
        compiled, memory = compile_memory(lowered)
        cost = None if compiled is None else count(
            compiled.as_text(), endless=workload.stage.rl.max_tokens - 1)
        plans.append(ProgramPlan(
            program.jit.name, memory, floor, cost,
            None if cost is None else roofline(cost, chip), mesh.size))
    return Plan(asked, tuple(mesh.shape.values()), workload.stage.batch, tuple(plans))
