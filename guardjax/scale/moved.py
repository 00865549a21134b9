"""Bytes that a chip reads from and writes to its HBM, by instruction of a compiled program."""

from __future__ import annotations

import re

from guardjax.scale.hlo import COLLECTIVES, Computation, Instruction, Program, Shape

# Nothing moves: names for what is there already, or counted inside.
_FREE = {"parameter", "constant", "get-tuple-element", "tuple", "bitcast", "while", "conditional",
         "call", "after-all", "partition-id", "replica-id", "iota", "async-start", "opt-barrier",
         "add-dependency", "custom-call"}
_PLACE = re.compile(r"index=(\d+)")


def on_the_chip(program: Program) -> set[str]:
    """Computations inside a fusion or a reduction, whose values never are in HBM."""
    return {called for computation in program.computations.values()
            for each in computation.instructions.values() if each.op not in ("while", "call",
                                                                            "conditional")
            for called in re.findall(r"\b(?:calls|to_apply)=%([\w.\-]+)", each.attributes)}


def bytes_moved(each: Instruction, computation: Computation, program: Program) -> float:
    """Bytes to and from HBM of an instruction that is not `on_the_chip`.

    A slice of an array counts as the slice. What is done beside other work counts where it starts.
    """
    if each.op in _FREE or each.op.endswith(("-done", "-update")):
        return 0.0
    operands = [computation.instructions[name].results for name in each.operands]
    if each.op == "fusion":
        return _fusion(each, operands, program)
    if each.op == "copy-start":     # results: where to, where from, a flag
        return sum(map(_hbm, each.results[:2]))
    results, op = each.results, each.op.removesuffix("-start")
    if each.op.endswith("-start"):
        results = _outputs(results, len(operands))
    if op in ("dynamic-slice", "slice", "gather"):
        source = operands[0][0]
        return sum(map(_hbm, results)) + (
            sum(shape.bytes for shape in results) if source.in_hbm else 0.0)
    if op == "dynamic-update-slice":
        update = operands[1][0]
        return _hbm(update) + (update.bytes if results[0].in_hbm else 0.0)
    return sum(map(_hbm, results)) + sum(_hbm(shape) for shapes in operands for shape in shapes)


def _outputs(results: tuple[Shape, ...], num_operands: int) -> tuple[Shape, ...]:
    """Of what a start gives, what it writes: (operands, outputs, flags), or the outputs alone."""
    arrays = [shape for shape in results if shape.dims]
    if len(arrays) < 2 * num_operands:
        return tuple(arrays)
    return tuple(arrays[num_operands:2 * num_operands])


def _hbm(shape: Shape) -> float:
    return shape.bytes if shape.in_hbm else 0.0


# --- fusions -------------------------------------------------------------------------------------

def _fusion(each: Instruction, operands: list[tuple[Shape, ...]], program: Program) -> float:
    inside = program.computations[each.called("calls")]
    total = _written(each, inside)
    for index, shapes in enumerate(operands):
        if len(shapes) == 1 and shapes[0].in_hbm:
            total += min(shapes[0].bytes, _read(inside, _parameter(inside, index), program))
    return total


def _parameter(computation: Computation, index: int) -> Instruction:
    return next(each for each in computation.instructions.values()
                if each.op == "parameter" and each.attributes.startswith(f"{index})"))


def _read(computation: Computation, value: Instruction, program: Program) -> float:
    """Bytes of a fusion's operand that it looks at: slices of it, or all."""
    total = 0.0
    for user in computation.instructions.values():
        if value.name not in user.operands:
            continue
        if user.op in ("dynamic-slice", "slice", "gather") and user.operands[0] == value.name:
            total += sum(shape.bytes for shape in user.results)
        elif user.op == "dynamic-update-slice" and user.operands[0] == value.name:
            continue                # written in place
        elif user.op in ("bitcast", "reshape"):
            total += _read(computation, user, program)
        elif user.op == "fusion":
            inside = program.computations[user.called("calls")]
            given = _parameter(inside, user.operands.index(value.name))
            # One that is only another name for it is read by those who use that name.
            total += (_read(computation, user, program) if _named(inside.root, inside) is given
                      else _read(inside, given, program))
        elif _passes_on(user, computation):
            continue
        else:
            return value.results[0].bytes
    return total


def _named(value: Instruction, computation: Computation) -> Instruction:
    """What a bitcast is another name for."""
    while value.op == "bitcast":
        value = computation.instructions[value.operands[0]]
    return value


def _written(fusion: Instruction, inside: Computation) -> float:
    roots = [inside.root]
    if roots[0].op == "tuple":
        roots = [inside.instructions[name] for name in roots[0].operands]
    elif _is_async(roots[0], "Start"):      # (operands, outputs, flags)
        arrays = [shape for shape in fusion.results if shape.dims]
        return sum(map(_hbm, _outputs(fusion.results, len(arrays) // 2)))
    total = 0.0
    for root, shape in zip(roots, fusion.results):
        root = _named(root, inside)
        if root.op == "dynamic-update-slice":
            update = inside.instructions[root.operands[1]].results[0]
            total += update.bytes if shape.in_hbm else 0.0
        elif not _stays(root, inside):
            total += _hbm(shape)
    return total


# A collective that overlaps with products is a chain of fusions: one starts it, the products hand
# it on, each naming it again among its results, and one ends it. It is counted where it starts.

def _is_async(each: Instruction, end: str) -> bool:
    return each.op == "custom-call" and f'"AsyncCollective{end}"' in each.attributes


def _on_its_way(each: Instruction, computation: Computation) -> bool:
    """Whether a collective inside a fusion has been started before it: only handed on, or ended."""
    if each.op not in COLLECTIVES:
        return False
    users = [user for user in computation.instructions.values() if each.name in user.operands]
    return all(user.op == "tuple" or _is_async(user, "Done") for user in users)


def _passes_on(user: Instruction, computation: Computation) -> bool:
    """Whether a user of an operand reads nothing of it."""
    return (user.op == "tuple" and user.is_root) or _is_async(user, "Done") or (
        _on_its_way(user, computation))


def _stays(root: Instruction, inside: Computation) -> bool:
    """Whether a result of a fusion is there already, written before or by what is on its way."""
    if root.op == "get-tuple-element":
        source = inside.instructions[root.operands[0]]
        if _is_async(source, "Start"):
            arrays = [shape for shape in source.results if shape.dims]
            return int(_PLACE.search(root.attributes)[1]) < len(arrays) // 2
    return root.op == "parameter" or _is_async(root, "Done") or _on_its_way(root, inside)
