"""The logs of a run's folder, checked line by line: `metrics.jsonl` and `groups.jsonl`."""

from __future__ import annotations

import dataclasses
import math
import pathlib
from collections.abc import Mapping
from typing import Any

from guardjax.policies.policy import RULE_ID
from guardjax.train.jsonl import read_jsonl
from guardjax.train.metrics import GROUPS_FILE, METRICS_FILE

_LISTED = 5     # runs named where a folder of runs was given


class RunLogError(ValueError):
    """A folder that is no run's, or a log that cannot be read."""


@dataclasses.dataclass(frozen=True)
class Answer:
    """One sampled answer; None where the example has no label or no reward applies."""

    text: str
    ended: bool
    tokens: int
    logp: float | None          # of the whole answer under the sampler, nats
    outcome: str | None         # safe, unsafe or needs_review
    rules: list[str]            # cited
    problem: str | None         # of the verdict grammar
    right: bool | None
    parts: dict[str, float]     # of the reward, unweighed
    reward: float | None        # what was learnt from
    centred: float | None       # reward minus the group's mean


@dataclasses.dataclass(frozen=True)
class Group:
    """One prompt with all its answers; the writer is `train/stages/groups.py`."""

    step: int
    stage: str
    prompt: int                 # place among the step's prompts
    prompts: int                # how many the step drew
    sort: str                   # one of `groups.SORTS`
    stands_for: float           # prompts of its sort in the step, a kept one
    example_id: str
    kind: str
    image_id: str
    policy_id: str
    pair_id: str
    policy: str
    question: str
    label: str | None           # safe or unsafe
    gold_rules: list[str]       # that the picture violates
    answer: str                 # supervised target
    rules: list[str] | None     # of the policy
    mean: float | None          # of the rewards
    std: float | None           # sample deviation
    answers: tuple[Answer, ...]

    @property
    def num_right(self) -> int:
        """How many answers are right."""
        return sum(answer.right is True for answer in self.answers)


@dataclasses.dataclass(frozen=True)
class RunLog:
    """What a run wrote so far."""

    folder: pathlib.Path
    metrics: tuple[Mapping[str, Any], ...]
    groups: tuple[Group, ...]

    @property
    def name(self) -> str:
        """The folder's name, with its parent's where it alone says little ("seed0")."""
        here = self.folder.resolve()
        return f"{here.parent.name}/{here.name}" if here.name.startswith("seed") else here.name

    def has(self, key: str) -> bool:
        """Whether any window of the metrics has a number of that name."""
        return any(isinstance(line.get(key), (int, float)) for line in self.metrics)


def read_run(path: str | pathlib.Path) -> RunLog:
    """Reads a run's folder. A last line that is still being written is left out.

    Raises:
      RunLogError: as `read_windows`, or a broken line of the groups, which is named.
    """
    folder = pathlib.Path(path)
    windows = read_windows(folder)
    groups = tuple(_group(f"{folder / GROUPS_FILE}, line {number}", record)
                   for number, record in enumerate(_lines(folder / GROUPS_FILE), start=1))
    return RunLog(folder, windows, groups)


def read_windows(folder: pathlib.Path) -> tuple[Mapping[str, Any], ...]:
    """The metrics of a run's folder, one a window of steps.

    Raises:
      RunLogError: no folder, no run in it, nothing written yet, or a broken line, which is named.
    """
    if not folder.is_dir():
        raise RunLogError(f"{folder} is {'a file' if folder.exists() else 'not there'}; give the "
                          "folder of a run, as --out of `guardjax train` named it")
    file = folder / METRICS_FILE
    if not file.is_file():
        raise RunLogError(
            f"{folder} has no {METRICS_FILE}, so it is no run's folder{_near(folder)}")
    windows = _lines(file)
    if not windows:
        raise RunLogError(f"{file} is empty: the run has not come to its first line, which is due "
                          "after log.every_steps steps")
    for number, line in enumerate(windows, start=1):
        _checked(f"{file}, line {number}", line, _METRICS)
    return tuple(windows)


def _lines(file: pathlib.Path) -> list[dict[str, Any]]:
    try:
        return read_jsonl(file)
    except (ValueError, OSError) as error:
        raise RunLogError(f"{error}. Take that line out; or give the run's command again, which "
                          "cuts its logs back to the newest checkpoint") from error


def _near(folder: pathlib.Path) -> str:
    found = sorted(str(file.parent) for file in folder.glob(f"**/{METRICS_FILE}"))
    if not found:
        return "; give the folder that --out of `guardjax train` named"
    more = f" and {len(found) - _LISTED} more" if len(found) > _LISTED else ""
    return f"; runs are in {', '.join(found[:_LISTED])}{more}"


_METRICS = {"step": "int", "stage": "str"}
_ANSWER = {field.name: field.type for field in dataclasses.fields(Answer)}
_GROUP = {field.name: field.type for field in dataclasses.fields(Group)
          if field.name != "answers"} | {"answers": "list"}


def _is_number(value: Any) -> bool:
    return (isinstance(value, (int, float)) and not isinstance(value, bool)
            and math.isfinite(value))


_CHECKS = {
    "int": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "float": _is_number,
    "str": lambda value: isinstance(value, str),
    "bool": lambda value: isinstance(value, bool),
    "list": lambda value: isinstance(value, list),
    "list[str]": lambda value: (isinstance(value, list)
                                and all(isinstance(item, str) for item in value)),
    "dict[str, float]": lambda value: (isinstance(value, dict)
                                       and all(map(_is_number, value.values()))),
}


def _checked(where: str, record: Any, types: Mapping[str, str]) -> dict[str, Any]:
    """The record's values of these names. Raises `RunLogError` where one is not of its type."""
    if not isinstance(record, dict):
        raise RunLogError(f"{where}: {record!r} is not a JSON object")
    for name, wanted in types.items():
        if name not in record:
            raise RunLogError(f"{where}: there is no {name!r}; was it written by another version?")
        plain, value = wanted.removesuffix(" | None"), record[name]
        if not (value is None and plain != wanted) and not _CHECKS[plain](value):
            raise RunLogError(f"{where}: {name!r} is {value!r}, which is not of type {wanted}")
    return {name: record[name] for name in types}


def _group(where: str, record: Any) -> Group:
    values = _checked(where, record, _GROUP)
    if values["label"] not in ("safe", "unsafe", None):
        raise RunLogError(f"{where}: 'label' is {values['label']!r}, which is neither safe nor "
                          "unsafe")
    for name in ("gold_rules", "rules"):
        if not all(RULE_ID.fullmatch(rule) for rule in values[name] or ()):
            raise RunLogError(f"{where}: {name!r} is {values[name]!r}, which is not a list of "
                              "rule ids")
    answers = values.pop("answers")
    if not answers:
        raise RunLogError(f"{where}: a group without answers")
    return Group(**values, answers=tuple(
        Answer(**_checked(f"{where}, answer {place}", answer, _ANSWER))
        for place, answer in enumerate(answers, start=1)))
