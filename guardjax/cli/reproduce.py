"""`guardjax reproduce`: a published table beside what is measured, under either protocol."""

from __future__ import annotations

import argparse
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from guardjax.cli.compute_flags import add_compute_flags
from guardjax.cli.scoring_flags import add_scoring_flags, scoring_of
from guardjax.cli.usage import fail

RESULTS = "experiments/safeguard_vl/results.json"
_TRAPS = "traps"
_DESCRIPTION = """\
Put a published table beside what is measured here: with its data and weights the table itself, and
without them the policy world in its place, in miniature. Numbers are by our protocol (--strict) or
as they were published (--compat).
"""
_EPILOG = """\
examples:
  guardjax reproduce --list                                            tables, rows, data, traps
  guardjax reproduce safeguard_vl_table6                               the stand-in's kept results
  guardjax reproduce safeguard_vl_table6 --runs runs/safeguard_vl --compat paper
  guardjax reproduce traps --runs runs/safeguard_vl                    each trap on stored answers
  guardjax reproduce safeguard_vl_table6 --data safeeditbench=SafeEditBench \\
      --model "Qwen2.5-VL-7B=Qwen2.5-VL-7B-Instruct" --out runs/table6

With data and weights: published, measured and interval side by side, in the terminal and as a page
in OUT; of several models each is tested against the first, in pairs. Answers are kept in OUT, so
that a run that was stopped goes on, and --compat, a view of them, asks no model again. One OUT is
of one way of asking: a table by --scoring one_token or probability, which write no verdict, goes to
an OUT of its own, and --compat that reads written verdicts is refused for it. Without, the policy
world stands in: the same rows and columns with a tiny guard on drawn scenes, said so and never
beside a published number in one table.
"""


def add_parser(subparsers: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Adds the verb `reproduce`."""
    parser = subparsers.add_parser(
        "reproduce", help="a paper's table beside what is measured", description=_DESCRIPTION,
        epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", nargs="?", help=f"a name of --list, or {_TRAPS!r}")
    parser.add_argument("--list", action="store_true",
                        help="say which tables there are, with their rows and data, and the traps")
    protocol = parser.add_mutually_exclusive_group()
    protocol.add_argument("--strict", action="store_true", help="our protocol (default)")
    protocol.add_argument("--compat", type=lambda text: text.split(","), metavar="NAME,...",
                          default=[], help="the published protocol: 'paper', or traps of --list")
    measured = parser.add_argument_group("with data and weights, the table itself")
    measured.add_argument("--data", action="append", default=[], metavar="FORMAT=DIR",
                          help="a benchmark's folder as its home publishes it; may be given again")
    measured.add_argument("--model", action="append", default=[], metavar="NAME=DIR",
                          help="weights of the table's row NAME; may be given again")
    measured.add_argument("--out", metavar="DIR",
                          help="where answers are kept, and the table written")
    measured.add_argument("--missing", choices=("refuse", "drop"), default="refuse",
                          help="what to do with rows whose picture is not there (default: refuse)")
    add_scoring_flags(measured)
    add_compute_flags(measured)
    counted = parser.add_argument_group("without, stored answers in its place")
    counted.add_argument("--runs", metavar="DIR", help="folder of guardjax experiment, whose "
                                                       "stored answers are counted")
    counted.add_argument("--row", default="sft_l3", metavar="ROW",
                         help="whose answers the traps are shown on (default: sft_l3)")
    parser.set_defaults(run=main)
    return parser


def main(args: argparse.Namespace) -> int:
    """Runs the verb; returns the exit status."""
    from rich.console import Console

    from guardjax.cli.stand_in import StandInError
    from guardjax.eval.paper_tables import TABLES
    from guardjax.eval.scoring import Scoring
    from guardjax.eval.traps import TRAPS, check_scored, chosen_traps

    console = Console()
    if args.list or not args.table:
        _list(console, TABLES, TRAPS)
        return 0 if args.list else fail("reproduce", "give the name of a table")
    try:
        traps, scoring = chosen_traps(args.compat), scoring_of(args)
        if not (args.data or args.model) and (scoring != Scoring() or args.template):
            return fail("reproduce", "--scoring and --template say how models are asked, and here "
                                     "stored answers are counted: give --data and --model")
        check_scored(traps, scoring)
        if args.table == _TRAPS:
            return _show_traps(console, args)
        if args.table not in TABLES:
            return fail("reproduce", f"no table is called {args.table!r}: --list names them")
        return _show_table(console, TABLES[args.table], args, traps)
    except (StandInError, ValueError) as error:
        return fail("reproduce", error)


def _list(console: Any, tables: Mapping[str, Any], traps: Sequence[Any]) -> None:
    """Prints what `table`, `--data`, `--model` and `--compat` may name."""
    lines = []
    for table in tables.values():
        lines += [f"{table.name}: {table.title}; {table.source}",
                  f"    data: {', '.join(table.benchmarks)}",
                  f"    rows: {', '.join(map(repr, table.rows or table.stand_in))}"]
    lines += [f"{_TRAPS}: what each trap of the published protocol does to a number; for --compat"]
    for trap in traps:
        name = trap.name + " (in 'paper')" * trap.in_tables
        lines.append(f"    {name}: {trap.published}")
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _show_table(console: Any, table: Any, args: argparse.Namespace, traps: Sequence[Any]) -> int:
    """Prints the paper's numbers, then the stand-in's, and what keeps the two apart."""
    from guardjax.cli import stand_in
    from guardjax.eval.traps import protocol_of

    if args.data or args.model:
        from guardjax.cli.reproduce_data import show_measured
        return show_measured(console, table, args, traps)
    if table.rows:
        console.print(_grid(f"{table.title}: as published in {table.source}", table.columns, {
            model: [_published(value) for value in cells] for model, cells in table.rows.items()}))
    for note in table.deviations:
        console.print(f"  note: {note}", highlight=False)
    if args.runs:
        stored = stand_in.stored_answers(pathlib.Path(args.runs))
        measured = stand_in.from_answers(
            table, stored, protocol_of(traps, sorted(set(stand_in.categories().values()))))
    elif traps:
        return fail("reproduce", "--compat is a view of stored answers: give the folder of "
                                 "guardjax experiment with --runs")
    else:
        measured = stand_in.from_results(table, pathlib.Path(RESULTS))
    console.print()
    console.print(_grid(
        "The policy world stands in (toy numbers of a tiny guard, per cent [95 % interval])",
        [column.title for column in table.stand_in_columns],
        {f"{model}: {table.stand_in[model]}" if model in table.stand_in else model:
         [_measured(cell) for cell in cells] for model, cells in measured.items()}))
    for trap in traps:
        console.print(f"  published protocol, {trap.name}: {trap.published}; strict: "
                      f"{trap.strict}", highlight=False)
    configs = stand_in.row_configs(table)
    for row, found in configs.items():
        console.print(f"  row {row}: its config resolves to {found} (hash, seed 0)",
                      highlight=False)
    asked = ",".join(dict.fromkeys(table.stand_in.values()))
    console.print(f"  trained and measured by: guardjax experiment --out DIR --rows {asked}",
                  highlight=False, soft_wrap=True)
    console.print(f"The table itself needs {', '.join(table.benchmarks)} and the models' weights: "
                  "--data FORMAT=DIR --model NAME=DIR --out DIR.", highlight=False)
    return 0


def _show_traps(console: Any, args: argparse.Namespace) -> int:
    """Prints what each trap alone does to the mean over policies of F1 on stored answers."""
    from guardjax.cli import stand_in
    from guardjax.eval.traps import trap_table

    if not args.runs:
        return fail("reproduce", "the traps are shown on stored answers: give the folder of "
                                 "guardjax experiment with --runs")
    stored = stand_in.stored_answers(pathlib.Path(args.runs))
    if args.row not in stored:
        return fail("reproduce", f"{args.runs} has no answers of {args.row!r}; it has "
                                 f"{', '.join(stored)}")
    outputs = stand_in.outputs_of(stored, args.row, stand_in.SPLIT, stand_in.categories())
    lines = trap_table(outputs)
    judged = sum(row.judged for row in outputs.both_stages)
    console.print(f"{args.row} on the test policies, {judged:,} verdicts, mean over policies of "
                  f"F1: {_measured(lines[0].strict)}; toy numbers", highlight=False)
    console.print(_grid(
        "Each trap alone, on the same answers",
        ("Number", *(f"Always {label}" for label in lines[0].constant), "Moved by"), {
            line.trap.name: [_measured(line.trapped),
                             *(f"{100 * value:.1f}" for value in line.constant.values()),
                             f"{100 * line.moved:+.2f}"] for line in lines}))
    for line in lines:
        console.print(f"  {line.trap.name}: {line.trap.published}", highlight=False)
    return 0


def _grid(title: str, columns: Sequence[str], rows: Mapping[str, Sequence[str]]) -> Any:
    import rich.box
    from rich.table import Table

    table = Table(title=title, title_justify="left", header_style="bold", pad_edge=False,
                  box=rich.box.SIMPLE_HEAD, show_edge=False)
    table.add_column("", overflow="fold")
    for column in columns:
        table.add_column(column, justify="right")
    for name, cells in rows.items():
        # In a wide table the interval goes under its value.
        table.add_row(name, *(cell.replace(" [", "\n[") if len(columns) > 2 else cell
                              for cell in cells))
    return table


def _published(value: float | None) -> str:
    return "–" if value is None else f"{value:g}"


def _measured(cell: Any) -> str:
    if cell is None or math.isnan(cell.value):
        return "–"
    if math.isnan(cell.low):
        return f"{100 * cell.value:.1f} [no interval]"
    return f"{100 * cell.value:.1f} [{100 * cell.low:.1f}–{100 * cell.high:.1f}]"
