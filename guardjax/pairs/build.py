"""Assess, edit, verify: pictures that a policy forbids, each with a twin that it allows.

SafeEditBench (arXiv 2603.01228) edits forbidden pictures into allowed ones, since editors refuse
the reverse. Its filter is not published; here a pair is kept only if its check (`checks.py`) finds
one local change and the assessor finds nothing left to forbid.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from guardjax.pairs.checks import PairCheck, PairLimits, check_pair
from guardjax.pairs.tools import Assessor, Editor, ToolError, ToolUnavailable
from guardjax.policies import Policy


@dataclasses.dataclass(frozen=True)
class Source:
    """A picture by name, read when its turn comes."""

    name: str
    read: Callable[[], np.ndarray]      # [H, W, 3] uint8; errors are ValueError


@dataclasses.dataclass(frozen=True)
class Pair:
    """A forbidden picture and its allowed twin; `labels` under further policies, by id."""

    name: str
    before: np.ndarray
    after: np.ndarray
    instruction: str
    check: PairCheck
    attempts: int
    labels: dict[str, tuple[str, str]]      # policy id -> ("safe" | "unsafe") of both members


@dataclasses.dataclass(frozen=True)
class LeftOut:
    """A picture without a twin, and why."""

    name: str
    reason: str


@dataclasses.dataclass(frozen=True)
class PairSettings:
    """How hard it is tried."""

    attempts: int = 3           # edits of one picture, each with an instruction of its own
    workers: int = 4            # pictures at a time
    limits: PairLimits = PairLimits()


def make_pairs(sources: Sequence[Source], policy: Policy, assessor: Assessor, editor: Editor,
               settings: PairSettings = PairSettings(), label_under: Sequence[Policy] = ()
               ) -> Iterator[Pair | LeftOut]:
    """What comes of each picture, in order.

    Raises:
      ToolUnavailable: a tool answers nobody; what was answered before is kept by `kept.py`.
    """
    def one(source: Source) -> Pair | LeftOut:
        try:
            return _make_pair(source, policy, assessor, editor, settings, label_under)
        except ToolUnavailable:
            raise
        except ValueError as error:
            return LeftOut(source.name, str(error))

    with concurrent.futures.ThreadPoolExecutor(settings.workers) as pool:
        waiting = [pool.submit(one, source) for source in sources]
        try:
            for place, future in enumerate(waiting):
                yield future.result()
                waiting[place] = None       # its pictures are no longer held
        finally:
            pool.shutdown(cancel_futures=True)


def _make_pair(source: Source, policy: Policy, assessor: Assessor, editor: Editor,
               settings: PairSettings, label_under: Sequence[Policy]) -> Pair | LeftOut:
    before = source.read()
    reasons = []
    for attempt in range(settings.attempts):
        found = assessor.assess(before, policy, attempt)
        if found.safe:
            return LeftOut(source.name, f"allowed under {policy.id} as it is")
        after = editor.edit(before, found.instruction, attempt)
        check = check_pair(before, after, settings.limits)
        problem = check.problem
        if not problem:
            left = assessor.assess(after, policy)
            problem = "" if left.safe else f"still forbidden: {left.instruction}"
        if not problem:
            labels = {other.id: tuple(_label(assessor, picture, other)
                                      for picture in (before, after)) for other in label_under}
            return Pair(source.name, before, after, found.instruction, check, attempt + 1, labels)
        reasons.append(problem)
    return LeftOut(source.name, f"{settings.attempts} edits failed: "
                                + "; ".join(dict.fromkeys(reasons)))


def _label(assessor: Assessor, picture: np.ndarray, policy: Policy) -> str:
    return "safe" if assessor.assess(picture, policy).safe else "unsafe"


def check_settings(settings: PairSettings) -> None:
    """Checks numbers that come from outside.

    Raises:
      ToolError: naming the value and its limit.
    """
    for name in ("attempts", "workers"):
        if getattr(settings, name) < 1:
            raise ToolError(f"{name}={getattr(settings, name)} must be at least 1")
