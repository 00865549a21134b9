"""Turns of both sides, and the lines that follow from them."""

from __future__ import annotations

import pathlib
import statistics
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bars import Line
from step_parts.cases import GROUP, Case, write_case
from step_parts.worker import Worker

Turn = Mapping[str, Any]
SAME = ("prompt_tokens", "answer_tokens", "prompts")


def of_case(case: Case, peer: str | None, turns: int) -> Iterator[Line]:
    """Interleaved turns of one case; `peer` is a Python that has TRL, or None."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        write_case(case, folder)
        sides = {"ours": Worker(sys.executable, "step_parts.ours", [name])}
        try:
            if peer is not None:
                flags = ["--checkpointing"] if case.checkpointing else []
                sides["trl"] = Worker(peer, "step_parts.peer", [name, *flags])
            taken = _take_turns(sides, turns, warm_up=not case.slow)
        finally:
            for side in sides.values():
                side.close()
    print(f"# {case.name}: {len(taken['ours'])} turns; " + "; ".join(
        side.facts["versions"] for side in sides.values()), flush=True)
    yield from _lines(case, taken)


def _take_turns(sides: Mapping[str, Worker], turns: int,
                warm_up: bool) -> dict[str, list[Turn]]:
    """`turns` of each side, one after the other. Ours compiles before; the peer warms up, too,
    but not where its steps are so long that nothing would show."""
    for name, side in sides.items():
        if name == "ours" or warm_up:
            side.turn()
    taken: dict[str, list[Turn]] = {name: [] for name in sides}
    for _ in range(turns):
        for name, side in sides.items():
            taken[name].append(side.turn())
    return taken


def _lines(case: Case, taken: Mapping[str, Sequence[Turn]]) -> Iterator[Line]:
    name, found = f"step/{case.name}", {}
    for side, turns in taken.items():
        found[side] = {clock: statistics.median(turn[clock] for turn in turns)
                       for clock in ("cpu", "wall")}
        grown = [turn["grown_mib"] for turn in turns]
        found[side]["grown"] = None if None in grown else max(grown)
        yield Line(f"{name}_seconds_{side}", found[side]["cpu"], "CPU_seconds")
        yield Line(f"{name}_memory_{side}", found[side]["grown"], "MiB_grown")
    both = "trl" in found
    ours, theirs = found["ours"], found.get("trl")
    yield Line(name, theirs["cpu"] / ours["cpu"] if both else None, "x_trl", least=case.bar)
    yield Line(f"{name}_wall", theirs["wall"] / ours["wall"] if both else None, "x_trl")
    known = both and None not in (ours["grown"], theirs["grown"])
    yield Line(f"{name}_memory", ours["grown"] / theirs["grown"] if known else None, "x_trl",
               most=case.memory)
    if both:
        pairs = zip(taken["ours"], taken["trl"])
        same = [all(mine[fact] == other[fact] for fact in SAME) for mine, other in pairs]
        whole = case.prompts * GROUP * case.tokens
        same += [turn["answer_tokens"] == whole for turn in taken["ours"]]
        yield Line(f"{name}_same_tokens", statistics.mean(same), "share_of_turns", least=1)
