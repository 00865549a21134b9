"""`guardjax experiment`: train and measure the rows of SafeGuard-VL in miniature, and report."""

from __future__ import annotations

import argparse
import pathlib
from collections.abc import Sequence
from typing import Any

from guardjax.cli.usage import fail

_DESCRIPTION = """\
Train guards in the ways of SafeGuard-VL (arXiv 2603.01228) and measure all of them on the policy
world, under policies that they never saw: one table, in miniature. A row of it is a config file
that "guardjax train" takes as well, trained with several seeds; the row base is only measured.
"""
_EPILOG = """\
examples:
  guardjax experiment --out runs/safeguard_vl                      all rows, all seeds
  guardjax experiment --out runs/safeguard_vl --rows sft_l3,grpo_varied --seeds 0
  guardjax experiment --out runs/try --rows main --seeds 0 --split dev --set 'stages.*.steps=20'
  guardjax experiment --out runs/safeguard_vl --only-summarise     results of what is there

Rows: base, {sft,exact,grpo}_{l3,varied}, describe_grpo_varied, think_grpo_varied; sft_l1 to
sft_l5 and grpo_l1 to grpo_l5 are the level matrix; {sft_pairs,bp_adapt,grpo_pair}_varied are what
a rival does. "main", "think", "matrix", "rivals" and "all" (all but the rivals) stand for many.
What is finished is not done again, so the command may be stopped and given again, and several of
them may work in one folder at a time: a row that another process is at is left to it.

Written to OUT: ROW/seedS/{model,metrics.jsonl,cost.json,predictions.jsonl}, results.json,
report.html, and looks.jsonl with one line for every measuring of the split test.

exit status: 0 all is trained and measured, 1 some row could not be trained, 2 bad input or nothing
is measured yet.
"""


def add_parser(subparsers: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Adds the verb `experiment`."""
    parser = subparsers.add_parser(
        "experiment", help="train and measure the rows of the experiment",
        description=_DESCRIPTION, epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for everything")
    parser.add_argument("--rows", default="all", metavar="ROW,...",
                        help="rows and groups of rows, see below (default: all)")
    parser.add_argument("--seeds", type=_numbers, metavar="S,...",
                        help="default: 0,1,2, and five for sft_varied and grpo_varied")
    parser.add_argument("--split", choices=("dev", "test"), default="test",
                        help="policies and scenes to measure on (default: test)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides",
                        help="what to change in every row; 'stages.*.KEY' is for every stage; "
                             "may be given again")
    parser.add_argument("--configs", default="configs/safeguard_vl", metavar="DIR",
                        help="folder of the row configs (default: configs/safeguard_vl)")
    parser.add_argument("--only-summarise", action="store_true",
                        help="train and measure nothing, gather what is there")
    parser.set_defaults(run=main)
    return parser


def main(args: argparse.Namespace) -> int:
    """Runs the verb; returns the exit status: 1 where a row could not be trained."""
    from rich.console import Console

    from guardjax.cache_dir import cache_dir
    from guardjax.cli import compose, measure, row_run, rows
    from guardjax.cli.gather import gather
    from guardjax.data.sources import SourceError
    from guardjax.train.compilation import enable_compile_cache
    from guardjax.train.guard import NonFiniteError
    from guardjax.train.stages.logp_gap import LogpGapError

    console, out = Console(), pathlib.Path(args.out)
    chosen = rows.chosen_rows(args.rows.split(","))
    for row in chosen:  # a wrong name should not show after hours
        if row != rows.BASE:
            rows.load_row(row, 0, args.overrides, args.configs)
    enable_compile_cache()
    world = measure.evaluation_world(cache_dir(), measure.FULL, args.split)
    absent = {split: f"left out: {why}" for split, why in measure.left_out(world).items()}
    for split, why in absent.items():
        console.print(f"{split} is {why}")
    questions = measure.plan_questions(world, compose.policy_splits(), measure.FULL, args.split)
    failed = []
    seeds = sorted({seed for row in chosen for seed in rows.seeds_of(row, args.seeds)})
    # Seed by seed, so that a whole table is there early.
    runs = [row_run.RowRun(out, row, seed) for seed in seeds for row in chosen
            if seed in rows.seeds_of(row, args.seeds)]
    for run in () if args.only_summarise else runs:
        try:
            _one(console, run, questions, world, args)
        except (SourceError, NonFiniteError, LogpGapError) as error:    # others are none the worse
            failed.append(run)
            fail("experiment", f"{run.row} seed {run.seed} cannot be trained: {error}")
    records = measure.test_records(world, args.split, measure.FULL.policies)
    if not gather(console, out, args.split, questions, records, absent):
        return fail("experiment", f"nothing in {out} is measured on {args.split} yet")
    return 1 if failed else 0


def _one(console: Any, run: Any, questions: Sequence[Any], world: pathlib.Path,
         args: argparse.Namespace) -> None:
    """Trains and measures one row with one seed."""
    from guardjax.cli import cost, row_run

    with row_run.alone(run) as free:
        if not free:
            console.print(f"{run.row} seed {run.seed}: another process is at it")
            return
        console.rule(f"{run.row}, seed {run.seed}")
        model = row_run.train_row(run, args.overrides, args.configs)
        if spent := cost.load_cost(run.folder):
            cells = spent.cells(run.row, run.seed)[2:]
            console.print("trained: " + ", ".join(
                f"{title.lower()} {cell}" for title, cell in
                zip(cost.HEAD[2:], cells, strict=True)), highlight=False)
        done = row_run.measure_row(run, model, questions, args.split, world, console)
        console.print(f"measured on {args.split}: {done['prompts']} prompts, "
                      f"{done['seconds']:.0f} s", highlight=False)


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of numbers such as 0,1,2")
