"""`guardjax data check`: what a data set holds, what is wrong with it, what is in it twice."""

from __future__ import annotations

import argparse
import collections
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from guardjax.atomic import write_text
from guardjax.cli.usage import plain
from guardjax.data.datasets.names import TRAINED_ON
from guardjax.json_file import write_json
from guardjax.policies import load_policy

if TYPE_CHECKING:
    from guardjax.data.datasets.check import Check

_SHOWN = 20     # lines of a kind in the terminal; the JSON file has all


def add_action(actions: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Adds `check` to the actions of `data`."""
    check = actions.add_parser(
        "check", help="check a public data set, or your own, in a local folder",
        description="Checks columns, labels, ids, policies and every picture; counts; and looks "
                    "for pictures that are there twice, or in another data set too.",
        epilog="exit status: 0 clean, 1 bad rows, contradictions or leaks, 2 it cannot be read.")
    check.add_argument("directory", metavar="DIR", help="the data set as the hub lays it out")
    check.add_argument("--format", required=True, choices=TRAINED_ON, metavar="NAME",
                       help="one of " + ", ".join(TRAINED_ON))
    check.add_argument("--split", default="", help="split (default: the one that is measured)")
    check.add_argument("--policy", metavar="FILE", help="policy in YAML, where rows have none")
    check.add_argument("--missing", choices=("refuse", "drop"), default="refuse",
                       help="rows without their picture are errors, or left out")
    check.add_argument("--against", metavar="DIR",
                       help="look for leaks from this data set of the same format, such as train")
    check.add_argument("--against-split", metavar="SPLIT", default="",
                       help="its split; without --against, of the same folder")
    check.add_argument("--distance", type=int, default=6, metavar="BITS",
                       help="bits of 64 in which pictures that look alike may differ (default: 6)")
    check.add_argument("--out", metavar="FILE.json", help="write everything found here")
    check.add_argument("--card", metavar="FILE.md", help="write a data card of it")
    return check


def check(args: argparse.Namespace) -> int:
    """Runs the action; returns the exit status. Raises `DatasetError` (2) as readers do."""
    # pyarrow and scipy take half a second to import, which other verbs need not wait for.
    from guardjax.data.datasets.card import dataset_card
    from guardjax.data.datasets.check import check_dataset
    from guardjax.data.datasets.registry import open_dataset

    policy = load_policy(args.policy) if args.policy else None
    errors: list[str] = []
    reader = open_dataset(args.format, args.directory, args.split, policy=policy,
                          missing=args.missing, errors=errors)
    other = None
    if args.against or args.against_split:
        other = open_dataset(args.format, args.against or args.directory, args.against_split,
                             policy=policy, missing="drop")
    found = check_dataset(reader, other, distance=args.distance, errors=errors)
    console = Console()
    console.print(_summary(reader.schema.title, reader.split, found))
    if found.labels:
        console.print(_counts("Policy", found.labels))
    if found.categories:
        console.print(_counts("Category", found.categories))
    _list(console, "bad rows", found.errors)
    _list(console, "left out", found.dropped)
    _list(console, "contradictions", found.contradictions)
    for title, pairs in (("there twice", found.duplicates), ("in the other set too", found.leaks)):
        _list(console, title, [
            f"{pair.first} and {pair.second}: "
            + ("equal" if pair.exact else f"{pair.distance} bits apart") for pair in pairs])
    if reader.schema.notes:
        console.print(f"note: {reader.schema.notes}", highlight=False)
    if args.out:
        write_json(Path(args.out), {"format": args.format, "directory": str(args.directory),
                                    "split": reader.split, "digest": reader.digest,
                                    **found.plain()})
        console.print(Text(f"everything: {args.out}"))
    if args.card:
        write_text(args.card, dataset_card(reader, found))
        console.print(Text(f"card: {args.card}"))
    return 0 if found.clean else 1


def _summary(title: str, split: str, found: Check) -> Text:
    head = f"{title}, split {split}: {found.rows} rows of {found.pictures} pictures, "
    if found.words:
        return Text(f"{head}captions of {found.words[0]} to {found.words[1]} words")
    labels = collections.Counter()
    for counts in found.labels.values():
        labels.update(counts)
    return Text(f"{head}{labels['safe']} safe, {labels['unsafe']} unsafe")


def _counts(title: str, counts: Mapping[str, Mapping[str, int]]) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column(title, overflow="fold")
    for label in ("safe", "unsafe"):
        table.add_column(label, justify="right")
    lines = list(counts.items())
    for name, numbers in lines[:_SHOWN]:
        table.add_row(Text(plain(name)), *(str(numbers.get(label, 0)) for label in
                                           ("safe", "unsafe")))
    if len(lines) > _SHOWN:
        table.add_row(Text(f"and {len(lines) - _SHOWN} more"), "", "")
    return table


def _list(console: Console, title: str, lines: Sequence[str]) -> None:
    if not lines:
        return
    console.print(Text(f"{title}: {len(lines)}"))
    for line in lines[:_SHOWN]:
        console.print(Text(f"  {plain(line)}"))
    if len(lines) > _SHOWN:
        console.print(Text(f"  and {len(lines) - _SHOWN} more"))
