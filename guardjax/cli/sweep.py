"""`guardjax sweep`: train every trial of a config's `sweep(add)`, measure each, one table."""

from __future__ import annotations

import argparse
import pathlib
import shlex
from collections.abc import Sequence
from typing import Any

from guardjax.cli.usage import fail

_EPILOG = """\
examples:
  guardjax sweep --config configs/safeguard_vl/sweep_grpo.py --out runs/sweep
  guardjax sweep --config configs/safeguard_vl/sweep_grpo.py --out runs/sweep --list
  guardjax sweep --config my.py --out runs/mine --split none --metrics reward/total,loss
  guardjax sweep --config my.py --out /shared/mine --print-commands | xargs -d '\\n' -n1 submit

The config file has, beside get_config(), the trials:
  def sweep(add):
      for lr in (5e-5, 1e-4):
          for seed in (0, 1):
              add({"stages.0.optim.lr": lr}, seed=seed)

Every trial is checked before the first is trained. What is finished is not done again, so the
command may be stopped and given again, and several of them may work in one folder at a time: on a
cluster each line of --print-commands is a job of its own, and --only-summarise gathers them.

Written to OUT: TRIAL/seedS/{model,metrics.jsonl,cost.json,...}, summary.csv and summary.html.
Trials that train on a data set are measured on its split dataset.report, if there is one.
exit status: 0 all trained, 1 a trial could not be, 2 bad input.
"""


def add_parser(subparsers: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Adds the verb `sweep`."""
    parser = subparsers.add_parser(
        "sweep", help="train and compare variations of a config", epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True, metavar="FILE", help="a file with sweep(add)")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for all trials")
    parser.add_argument("--split", choices=("dev", "test", "none"),
                        help="of the policy world, to measure on (default: dev); none: only what "
                             "training logs is compared. Trials on a data set are measured on "
                             "their dataset.report")
    parser.add_argument("--metrics", type=lambda text: tuple(filter(None, text.split(","))),
                        default=("reward/total",), metavar="NAME,...",
                        help="columns from the end of the training's log (default: reward/total)")
    parser.add_argument("--only", action="append", metavar="TRIAL/seedS",
                        help="this trial alone; may be given again")
    parser.add_argument("--list", action="store_true", help="say what the trials are, and stop")
    parser.add_argument("--print-commands", action="store_true",
                        help="print a command for each trial that is not finished, and stop")
    parser.add_argument("--only-summarise", action="store_true",
                        help="train and measure nothing, gather what is there")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE",
                        help="what to change in every trial")
    parser.set_defaults(run=main)
    return parser


def main(args: argparse.Namespace) -> int:
    """Runs the verb; returns the exit status: 1 where a trial could not be trained."""
    from rich.console import Console

    from guardjax.cli import sweep_data, sweep_table, trials
    from guardjax.cli.row_run import RowRun
    from guardjax.train.config import ConfigError

    console, out = Console(), pathlib.Path(args.out)
    every = trials.load_trials(args.config, args.overrides)
    if unknown := set(args.only or ()) - {trial.place for trial in every}:
        raise ConfigError(f"--only {', '.join(sorted(unknown))}: no such trial; --list names them")
    chosen = [trial for trial in every if not args.only or trial.place in args.only]
    if args.list:
        print(*(trial.place for trial in chosen), sep="\n")
        return 0
    dataset = sweep_data.reported(every)
    if dataset and dataset.report and args.split in ("dev", "test"):
        raise ConfigError(f"--split {args.split} is of the policy world, and the trials are "
                          f"measured on dataset.report={dataset.report!r}: leave --split out, or "
                          "give none")
    split = args.split
    if split is None:
        split = "dev" if dataset is None else sweep_data.MEASURED if dataset.report else "none"
    split = None if split == "none" else split
    if args.print_commands:
        waiting = [trial for trial in chosen if not sweep_table.is_finished(
            RowRun(out, trial.name, trial.seed), split)]
        print(*(_command(args, trial) for trial in waiting), sep="\n")
        return 0
    failed = [] if args.only_summarise else _run_all(console, out, chosen, split)
    columns, resample = (), None
    if split == sweep_data.MEASURED:    # whose policies are its own, not a sample
        columns, resample = sweep_data.data_columns(dataset), ("scenes", "seeds")
    elif split:
        columns = sweep_table.world_columns(split)
    summary = sweep_table.summarise_sweep(out, every, split, args.metrics, columns,
                                          resample=resample)
    if not any(line.finished for line in summary.lines):
        return 1 if failed else fail("sweep", f"nothing in {out} is finished yet")
    measured_on = dataset.report if split == sweep_data.MEASURED else split
    where = f"measured on {measured_on}" if split else "as the training logs end"
    title = f"{args.config}, {where}; best first"
    console.print(sweep_table.terminal_summary(summary, title))
    console.print(f"table: {sweep_table.save_summary(out, summary)}, "
                  f"{sweep_table.save_summary_page(out, summary, title)}")
    return 1 if failed else 0


def _run_all(console: Any, out: pathlib.Path, chosen: Sequence[Any], split: str | None
             ) -> list[Any]:
    """Trains and measures what is not; returns the trials that could not be trained."""
    from guardjax.cache_dir import cache_dir
    from guardjax.cli import compose, measure, row_run, sweep_data
    from guardjax.data.sources import SourceError
    from guardjax.train.compilation import enable_compile_cache
    from guardjax.train.guard import NonFiniteError
    from guardjax.train.stages.logp_gap import LogpGapError

    enable_compile_cache()
    questions, world = [], None
    if split and split != sweep_data.MEASURED:
        world = measure.evaluation_world(cache_dir(), measure.FULL, split)
        questions = measure.plan_questions(world, compose.policy_splits(), measure.FULL, split)
    failed = []
    for number, trial in enumerate(chosen):
        run = row_run.RowRun(out, trial.name, trial.seed)
        console.rule(f"trial {number + 1} of {len(chosen)}: {trial.place}")
        with row_run.alone(run) as free:
            if not free:
                console.print("another process is at it")
                continue
            try:
                model = row_run.train_config(run, trial.config)
            except (SourceError, NonFiniteError, LogpGapError) as error:
                failed.append(trial)    # the others are none the worse
                fail("sweep", f"{trial.place} cannot be trained: {error}")
                continue
            if split == sweep_data.MEASURED:
                sweep_data.measure_on_data(run, trial.config, model, console)
            elif questions:
                row_run.measure_row(run, model, questions, split, world, console)
    return failed


def _command(args: argparse.Namespace, trial: Any) -> str:
    split = ["--split", args.split] if args.split else []
    return shlex.join(["guardjax", "sweep", "--config", args.config, "--out", args.out, *split,
                       "--only", trial.place, *args.overrides])
