"""Verdicts as a person sees them in the terminal, of several policies side by side."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Mapping, Sequence

from rich.table import Table
from rich.text import Text

from guardjax.cli.usage import plain
from guardjax.eval.verdict_record import Pins, VerdictRecord

_COLOURS = {"safe": "green", "unsafe": "red", "needs_review": "yellow"}
_CELL, _PATH = 14, 24       # columns that a verdict and a picture's path want at least
_DIFFER = "differ"


def one_policy(records: Iterable[VerdictRecord]) -> Table:
    """A picture a line, with the rules that it violates and why."""
    table = _table("Picture", "Decision", "Rules", "Why")
    for record in records:
        why = record.rationale or ""
        if record.status != "ok":
            why = record.status + (f": {record.problem}" if record.status.startswith("error:")
                                   else "")
        table.add_row(Text(plain(record.picture)), _decision(record),
                      Text(", ".join(record.rule_ids)), Text(plain(why)))
    return table


def several_policies(records: Sequence[VerdictRecord], width: int) -> Table:
    """A picture a line; policies that call one picture safe and unsafe are marked.

    A column is a policy's where a terminal of `width` columns has room for all of them, else a
    decision's, with the policies that made it.
    """
    titles = policy_titles(record.pins for record in records)
    wanted = sum(2 + max(len(title), _CELL) for title in titles.values())
    if _PATH + wanted + len(_DIFFER) <= width:
        table = _table("Picture", *titles.values(), "")
        cells = lambda found: [_verdict(record) for record in found]
    else:
        table = _table("Picture", "Safe", "Unsafe", "Needs review", "")
        cells = lambda found: [Text(", ".join(
            titles[record.pins] for record in found if record.decision == decision), colour)
            for decision, colour in _COLOURS.items()]
    for picture, found in _by_picture(records).items():
        table.add_row(Text(plain(picture)), *cells(found), _DIFFER if _differ(found) else "")
    return table


def summary(records: Sequence[VerdictRecord]) -> list[str]:
    """How many pictures are safe, unsafe and to review, in one line or in one for each policy."""
    titles = policy_titles(record.pins for record in records)
    if len(titles) == 1:
        return [f"{len(records)} pictures: {_counts(records)}"]
    pictures = _by_picture(records)
    number = sum(map(_differ, pictures.values()))
    return [f"{len(pictures)} pictures under {len(titles)} policies; they call {number} of them "
            "both safe and unsafe",
            *(f"  {title}: {_counts([r for r in records if r.pins == pins])}"
              for pins, title in titles.items())]


def policy_titles(some: Iterable[Pins]) -> Mapping[Pins, str]:
    """What to call each policy: its id; where two have that, its version or hash as well."""
    pins = list(dict.fromkeys(some))
    for name in (lambda p: p.policy_id, lambda p: f"{p.policy_id} {p.policy_version}",
                 lambda p: f"{p.policy_id} {p.policy_version} ({p.policy_hash})"):
        titles = {each: plain(name(each)) for each in pins}
        if len(set(titles.values())) == len(pins):
            break
    return titles


def _by_picture(records: Iterable[VerdictRecord]) -> dict[str, list[VerdictRecord]]:
    found: dict[str, list[VerdictRecord]] = {}
    for record in records:
        found.setdefault(record.picture, []).append(record)
    return found


def _differ(found: Iterable[VerdictRecord]) -> bool:
    return {"safe", "unsafe"} <= {record.decision for record in found}


def _counts(records: Iterable[VerdictRecord]) -> str:
    counts = collections.Counter(record.decision for record in records)
    return (f"{counts['safe']} safe, {counts['unsafe']} unsafe, "
            f"{counts['needs_review']} to review")


def _verdict(record: VerdictRecord) -> Text:
    """The decision with its rules, or why there is none."""
    more = ", ".join(record.rule_ids) if record.status == "ok" else f"({record.status})"
    return Text.assemble(_decision(record), f" {more}" if more else "")


def _decision(record: VerdictRecord) -> Text:
    return Text(record.decision.replace("_", " "), _COLOURS[record.decision])


def _table(*titles: str) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in titles:
        table.add_column(title, overflow="fold")
    return table
