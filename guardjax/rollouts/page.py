"""One HTML file of a run's rollouts: signs of gaming, curves, and groups to filter.

It loads nothing and sends nothing: pictures of curves are in it, everything that a model or a
policy says is escaped by the template, and a content security policy forbids the rest. Without
JavaScript all is there but the filters.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from guardjax.eval.figures import learning_curves
from guardjax.eval.report import page_environment
from guardjax.policies.verdict import Problem
from guardjax.rollouts.curves import DrawnCurve
from guardjax.rollouts.run_log import Answer, Group, RunLog
from guardjax.rollouts.sign import Sign

SORT_TITLES = {
    "signal": "signal", "all_wrong": "no signal, all wrong", "all_right": "no signal, all right",
    "no_signal": "no signal, though not all alike", "unrewarded": "not rewarded"}


@dataclasses.dataclass(frozen=True)
class SaidAnswer:
    """An answer and how many of its group are the same in text, tokens and reward."""

    answer: Answer
    count: int


@dataclasses.dataclass(frozen=True)
class ShownGroup:
    """A group as the page shows it: answers by reward, the best first."""

    group: Group
    said: tuple[SaidAnswer, ...]

    @property
    def sort_title(self) -> str:
        """What the group teaches, in words."""
        return SORT_TITLES.get(self.group.sort, self.group.sort)


@dataclasses.dataclass(frozen=True)
class ShownSign:
    """A sign with its figure, if it has one."""

    sign: Sign
    figure: bytes | None


def render_page(run: RunLog, signs: Sequence[Sign], curves: Sequence[DrawnCurve], *,
                groups: int) -> str:
    """The page of at most so many groups; signs that the run has nothing for are left out of a run
    without rollouts."""
    shown = [show_group(group) for group in choose_evenly(run.groups, groups)]
    measured = any(sign.raised is not None for sign in signs)
    return page_environment("guardjax.rollouts").get_template("rollouts.html.j2").render(
        run=run, missing=missing_parts(run), curves=curves, groups=shown, sorts=SORT_TITLES,
        signs=[ShownSign(sign, _figure(sign)) for sign in signs] if measured else [],
        problems=_problems(shown), provenance=_provenance(run),
        steps=sorted({each.group.step for each in shown}),
        raised=sum(sign.raised is True for sign in signs),
        silent=sum(sign.raised is None for sign in signs))


def missing_parts(run: RunLog) -> str:
    """In words, what the run does not have; "" where it has groups."""
    if run.groups:
        return ""
    stages = ", ".join(dict.fromkeys(str(line["stage"]) for line in run.metrics))
    if not run.has("rollout/right") and not run.has("rollout/tokens"):
        return (f"This run has sampled no answers: its stages so far ({stages}) are of no kind "
                "that does. Only a stage of kind grpo has rollouts; the curves below are what "
                "there is.")
    return ("This run has kept no groups: they are written every log.groups_every_steps steps, and "
            "that is 0, or not over yet, or the run was made before there were any. The curves and "
            "the signs that need metrics alone are below.")


def choose_evenly(groups: Sequence[Group], limit: int) -> list[Group]:
    """All groups of as many steps as fit, spread evenly from the first to the last."""
    steps = sorted({group.step for group in groups})
    if len(groups) <= limit:
        return list(groups)
    number = max(1, limit * len(steps) // len(groups))
    places = np.unique(np.linspace(len(steps) - 1, 0, number).round().astype(int))
    kept = {steps[place] for place in places}
    return [group for group in groups if group.step in kept]


def show_group(group: Group) -> ShownGroup:
    """The group with equal answers as one."""
    found: dict[tuple[object, ...], list[Answer]] = {}
    for answer in group.answers:
        key = (answer.text, answer.ended, answer.tokens, answer.reward)
        found.setdefault(key, []).append(answer)
    said = [SaidAnswer(same[0], len(same)) for same in found.values()]
    return ShownGroup(group, tuple(sorted(
        said, key=lambda each: -np.inf if each.answer.reward is None else each.answer.reward,
        reverse=True)))


def _figure(sign: Sign) -> bytes | None:
    return learning_curves({sign.figure_title: sign.series}) if sign.series else None


def _problems(groups: Sequence[ShownGroup]) -> list[str]:
    found = {each.answer.problem for group in groups for each in group.said}
    return [str(problem) for problem in Problem if str(problem) in found]


def _provenance(run: RunLog) -> Mapping[str, str]:
    stages = dict.fromkeys(str(line["stage"]) for line in run.metrics)
    facts = {"Run": run.name, "Stages": ", ".join(stages),
             "Steps": f"{run.metrics[-1]['step']:,}, metrics in {len(run.metrics):,} windows"}
    if run.groups:
        steps = {group.step for group in run.groups}
        facts["Groups recorded"] = (f"{len(run.groups):,} of {len(steps):,} steps, "
                                    f"{sum(len(g.answers) for g in run.groups):,} answers")
    return facts
