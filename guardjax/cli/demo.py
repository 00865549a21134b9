"""`guardjax demo`: short versions of the main rows, a table, a report, and verdicts that differ."""

from __future__ import annotations

import argparse
import itertools
import pathlib
import time
from collections.abc import Sequence
from typing import Any

_DESCRIPTION = """\
Trains short versions of the experiment's main rows from the shipped base model, measures them,
prints the table and writes OUT/report.html and OUT/results.json. Minutes on two CPU cores. Results
of the full runs are shown beside them from experiments/safeguard_vl/results.json, labelled.
"""

# Short runs with as many labels each: a fifth of GRPO's prompts have none.
STEPS = {"sft_l3": 60, "sft_varied": 60, "grpo_l3": 75, "grpo_varied": 75}
TRAIN_PAIRS = 1000
FULL_RESULTS = "experiments/safeguard_vl/results.json"


def add_parser(subparsers: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Adds the verb `demo`."""
    parser = subparsers.add_parser(
        "demo", help="train short versions of the main rows and write a report",
        description=_DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="runs/demo", metavar="DIR", help="folder for everything")
    parser.add_argument("--configs", default="configs/safeguard_vl", metavar="DIR",
                        help="folder of the row configs (default: configs/safeguard_vl)")
    parser.add_argument("--steps-scale", type=float, default=1.0, metavar="X",
                        help="train X times as many steps (default: 1)")
    parser.add_argument("--full-results", default=FULL_RESULTS, metavar="FILE",
                        help=f"results of the full runs (default: {FULL_RESULTS})")
    parser.set_defaults(run=main)
    return parser


def main(args: argparse.Namespace) -> int:
    """Runs the verb; returns the exit status."""
    from rich.console import Console

    from guardjax.cache_dir import cache_dir
    from guardjax.cli import compose, examples, measure, outcome, rows, world_answers
    from guardjax.eval.guard import Guard, weights_hash
    from guardjax.eval.records import save_predictions
    from guardjax.eval.tables import save_results

    started, console, out = time.monotonic(), Console(), pathlib.Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    full, names = outcome.checked_in(args.full_results), rows.names()
    models = {rows.BASE: compose.model_dir("base")}
    for name, steps in STEPS.items():
        steps = max(12, round(steps * args.steps_scale))
        console.rule(f"{names[name]}: {steps} steps")
        run = rows.load_row(name, 0, [
            f"stages.0.steps={steps}", f'world.sizes={{"train": {TRAIN_PAIRS}}}'], args.configs)
        models[name] = _train(console, run, out / name)
    console.rule("measuring")
    world = measure.evaluation_world(cache_dir(), measure.SHORT)
    questions = measure.plan_questions(world, compose.policy_splits(), measure.SHORT)
    predictions = []
    for name, path in models.items():
        pins = world_answers.pins_of(world, "test", questions, name, weights_hash(path))
        stored = world_answers.open_answers(
            world_answers.own_file(out, pins), pins, questions)
        predictions += world_answers.ask_world(
            stored, lambda path=path: Guard.load(path), questions, out, console)
    results = outcome.outcome_of(predictions, per_seed=False)
    save_predictions(out / "predictions.jsonl", predictions)
    save_results(out / "results.json", results.everything)
    main_table = outcome.main_table(results, "Policy world, split test, this run")
    outcome.print_tables(console, (main_table, *_full_tables(full)), names)
    outcome.print_contrasts(console, results.contrasts)
    records = measure.test_records(world, "test", measure.SHORT.policies)
    _write_report(out, results, full, predictions, questions, records)
    examples.judge_examples(console, models["grpo_varied"], out)
    console.print(f"report: {out / 'report.html'}   ({time.monotonic() - started:.0f} s)")
    return 0


def _train(console: Any, run: Any, folder: pathlib.Path) -> pathlib.Path:
    """The trained model. What an earlier demo trained otherwise is put aside, not shown as this."""
    from guardjax.cli import compose, training
    from guardjax.train.console import RunConsole
    from guardjax.train.workdir import WorkdirError, check_workdir

    try:
        check_workdir(folder, compose.claim_of(run))
    except WorkdirError:
        aside = next(path for number in itertools.count(1)
                     if not (path := folder.with_name(f"{folder.name}.old{number}")).exists())
        folder.rename(aside)
        console.print(f"{folder} was trained from another model or config: kept as {aside.name}, "
                      "trained again", highlight=False, markup=False)
    return training.train(run, folder, RunConsole(run.log.every_steps))


def _full_tables(full: Any) -> list[Any]:
    """Table and controls of the full runs; none where their results are not there."""
    from guardjax.cli import outcome
    from guardjax.eval.tables import CHECKED_IN

    if full is None:
        return []
    return [outcome.main_table(full, f"The experiment: {CHECKED_IN}"),
            *outcome.control_tables(full, CHECKED_IN)]


def _write_report(
    out: pathlib.Path, results: Any, full: Any, predictions: Sequence[Any],
    questions: Sequence[Any], records: Sequence[Any],
) -> None:
    from guardjax.cli import outcome, rows
    from guardjax.cli.world_figures import world_figures
    from guardjax.eval.report import Report, save_report
    from guardjax.eval.tables import CHECKED_IN

    names, hashes = rows.names(), {row.variant: row.model for row in predictions}
    verdicts, counts = world_figures(predictions, "test", records, compared=list(hashes),
                                     shown=rows.SHOWN, names=names)
    figures = [*verdicts, *outcome.curve_figures(
        {name: out / name / "metrics.jsonl" for name in STEPS}, names)]
    if full and (matrix := outcome.matrix_figure(full, CHECKED_IN)):
        figures.append(matrix)
    table = outcome.main_table(results, "This run")
    save_report(out / "report.html", Report(
        title="guardjax: guards that follow the policy they are shown",
        subtitle="Short demonstration runs on the policy world; toy numbers, not the paper's.",
        rows=table.rows, variants=table.variants, names=names, tables=_full_tables(full),
        contrasts=results.contrasts, figures=figures, plain_tables=counts,
        cases=outcome.gallery_of(predictions, questions, rows.SHOWN),
        provenance={"Prompts": f"{len(questions):,} a model",
                    **{f"Model {names[name]}": model for name, model in hashes.items()}}))
