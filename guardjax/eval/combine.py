"""One decision from several looks at a picture: its frames, and its backgrounds if transparent."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from guardjax.policies import Outcome, Verdict


@dataclasses.dataclass(frozen=True)
class Combined:
    """A decision; `problem` is None exactly where the outcome is safe or unsafe."""

    outcome: Outcome
    rule_ids: tuple[str, ...] = ()
    rationale: str | None = None
    problem: str | None = None


def combine(frames: Sequence[Sequence[Verdict]]) -> Combined:
    """Frames of backgrounds of verdicts, to one decision; raises `ValueError` for no verdict.

    The backgrounds of one frame must agree, else it needs review: a picture that changes with the
    page behind it is not one picture. Of the frames the worst wins, unsafe before needs_review
    before safe: a clip is as bad as its worst moment.
    """
    if not frames or not all(frames):
        raise ValueError("no verdict to combine")
    combined = [_backgrounds(views) for views in frames]
    unsafe = [frame for frame in combined if frame.outcome is Outcome.UNSAFE]
    if unsafe:
        return Combined(Outcome.UNSAFE, _union(unsafe), unsafe[0].rationale)
    return next((frame for frame in combined if frame.outcome is Outcome.NEEDS_REVIEW),
                combined[0])


def _backgrounds(views: Sequence[Verdict]) -> Combined:
    first = views[0]
    for view in views:
        if view.outcome is Outcome.NEEDS_REVIEW:
            return Combined(view.outcome, (), view.rationale, str(view.problem))
    if any(view.outcome is not first.outcome for view in views):
        return Combined(Outcome.NEEDS_REVIEW, problem="backgrounds_disagree")
    return Combined(first.outcome, _union(views), first.rationale)


def _union(parts: Sequence[Verdict | Combined]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(rule for part in parts for rule in part.rule_ids))
