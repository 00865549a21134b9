"""The text of a compiled program as data: computations, their instructions, how often each runs."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping

COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")

_BITS = {"pred": 8, "bf16": 16, "f16": 16, "f32": 32, "f64": 64, "c64": 64} | {
    f"{sign}{bits}": bits for sign in "su" for bits in (1, 2, 4, 8, 16, 32, 64)}
_HEAD = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_LINE = re.compile(r"^\s+(ROOT )?%([\w.\-]+) = (.*)$")
_ARRAY = re.compile(r"\b([a-z]+\d*)\[([\d,]*)\](\{[^}]*\})?")
_OP = re.compile(r" ([a-z][\w\-]*)\((.*)$")
_NAME = re.compile(r"%([\w.\-]+)")
_PLACE = re.compile(r"index=(\d+)")
# What a kernel says of itself is written over several lines.
_BROKEN = re.compile(r"\n(?=\"|\}\})")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
_CALLED = re.compile(r"\b(?:calls|to_apply|body|condition|true_computation|false_computation)="
                     r"%([\w.\-]+)|branch_computations=\{([^}]*)\}")


@dataclasses.dataclass(frozen=True)
class Shape:
    """An array of a program. `in_hbm` is false where the compiler keeps it on the chip."""

    dtype: str
    dims: tuple[int, ...]
    in_hbm: bool

    @property
    def bytes(self) -> float:
        """Its size; 0 for what is no array of numbers, such as a token."""
        return _BITS.get(self.dtype, 0) / 8 * math.prod(self.dims)


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line: `%name = results op(operands), attributes`."""

    name: str
    results: tuple[Shape, ...]
    op: str
    operands: tuple[str, ...]
    attributes: str
    is_root: bool

    def called(self, key: str) -> str:
        """The computation of an attribute such as "body"."""
        return re.search(rf"\b{key}=%([\w.\-]+)", self.attributes)[1]


@dataclasses.dataclass(frozen=True)
class Computation:
    """Instructions by name, in order."""

    name: str
    instructions: Mapping[str, Instruction]

    @property
    def root(self) -> Instruction:
        """The one whose result is the computation's."""
        return next(each for each in self.instructions.values() if each.is_root)


@dataclasses.dataclass(frozen=True)
class Program:
    """All computations of a compiled module."""

    entry: str
    computations: Mapping[str, Computation]

    def visits(self, endless: int = 1) -> Mapping[str, float]:
        """How often each computation runs; what a fusion calls runs with it.

        A loop that counts to a number runs so often. One that ends by what it computes, such as
        decoding until every answer has ended, is taken to run `endless` times.
        """
        counts: dict[str, float] = dict.fromkeys(self.computations, 0.0)

        def visit(name: str, times: float) -> None:
            counts[name] += times
            for each in self.computations[name].instructions.values():
                if each.op == "while":
                    trips = self._trips(each)
                    visit(each.called("body"), times * (endless if trips is None else trips))
                    continue
                for one, many in _CALLED.findall(each.attributes):
                    for called in [one] if one else _NAME.findall(many):
                        visit(called, times)

        visit(self.entry, 1.0)
        return counts

    def _trips(self, loop: Instruction) -> int | None:
        """How often a loop runs: as the compiler says, or as its counter does on the way from 0 to
        a number; None if it ends otherwise."""
        if known := _TRIPS.search(loop.attributes):
            return int(known[1])
        condition = self.computations[loop.called("condition")]
        body, root = condition.instructions.values(), condition.root
        numbers = [each for each in body if each.op == "constant"]
        plain = all(each.op in ("parameter", "get-tuple-element", "constant", "compare", "bitcast",
                                "copy") for each in body)
        if not plain or len(numbers) != 1 or "direction=LT" not in root.attributes:
            return None
        places = [_PLACE.search(each.attributes) for each in body if each.op == "get-tuple-element"]
        step = self._step(self.computations[loop.called("body")], int(places[0][1]))
        return None if step is None else -(-_number(numbers[0]) // step)

    def _step(self, body: Computation, place: int) -> int | None:
        """What a loop's body adds to the counter at a place of its tuple. Not always 1: a product
        that is computed while its factor travels around the chips takes two at a time."""
        find = body.instructions.get
        counter = find(body.root.operands[place])
        while counter is not None and counter.op in ("copy", "bitcast"):
            counter = find(counter.operands[0])
        if counter is None or counter.op != "add":
            return None
        steps = [each for each in map(find, counter.operands) if each and each.op == "constant"]
        return _number(steps[0]) if len(steps) == 1 else None


def _number(constant: Instruction) -> int:
    return int(constant.attributes.split(")")[0])


def parse(text: str) -> Program:
    """The program of `Compiled.as_text()`."""
    computations, entry, name, lines = {}, "", "", {}
    for line in _BROKEN.sub("", text).splitlines():
        if head := _HEAD.match(line):
            name, lines = head[2], {}
            computations[name] = Computation(name, lines)
            entry = name if head[1] else entry
        elif name and (match := _LINE.match(line)):
            each = _instruction(match[2], match[3], bool(match[1]))
            lines[each.name] = each
    return Program(entry, computations)


def _instruction(name: str, rest: str, is_root: bool) -> Instruction:
    match = _OP.search(rest) if rest.startswith("(") else _OP.search(" " + rest.split(" ", 1)[1])
    results = rest[:match.start() + 1] if rest.startswith("(") else rest.split(" ", 1)[0]
    operands, attributes = _split_call(match[2])
    if match[1] in ("constant", "parameter"):
        operands, attributes = "", match[2]
    return Instruction(name, _shapes(results), match[1], tuple(_NAME.findall(operands)),
                       attributes, is_root)


def _split_call(text: str) -> tuple[str, str]:
    """Text inside the parentheses of a call, and after them."""
    depth = 1
    for index, letter in enumerate(text):
        depth += {"(": 1, ")": -1}.get(letter, 0)
        if not depth:
            return text[:index], text[index + 1:]
    return text, ""


def _shapes(text: str) -> tuple[Shape, ...]:
    return tuple(Shape(dtype, tuple(int(n) for n in dims.split(",") if n),
                       "S(" not in layout or "S(0)" in layout)
                 for dtype, dims, layout in _ARRAY.findall(text))
