"""What the experiment shows at its end: results, tables and report of all that was measured."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence

from rich.console import Console

from guardjax.cli import outcome, rows
from guardjax.cli.cost import HEAD, load_cost
from guardjax.cli.row_run import RowRun, found_runs
from guardjax.cli.world_figures import world_figures
from guardjax.eval.harness import Question, digest
from guardjax.eval.records import load_predictions
from guardjax.eval.report import PlainTable, Report, save_report
from guardjax.eval.tables import save_results
from guardjax.train.workdir import kept_base
from guardjax.world.builder import WorldRecord


def gather(
    console: Console, out: pathlib.Path, split: str, questions: Sequence[Question],
    records: Sequence[WorldRecord], absent: Mapping[str, str],
) -> bool:
    """Writes `results.json` and `report.html` and prints the tables; False where nothing is there.

    A row that was asked other questions than `questions`, and a base that is not what the rows
    started from, are left out with a line that says so. `records` are the pictures of `split`;
    `absent` (a split and why it is missing) goes into the report.
    """
    used, predictions = [], []
    runs = found_runs(out)
    bases = {kept_base(run.folder) for run in runs} - {None}
    for run in runs:
        found = run.measured(split)
        if found and found["questions"] != digest(questions):
            console.print(f"{run.row} seed {run.seed} is left out: it was asked other questions; "
                          "measure it again")
        elif found and run.row == rows.BASE and bases and found["model"] not in bases:
            console.print(f"{run.row} is left out: {found['model']} was measured, and the rows "
                          f"started from {', '.join(sorted(bases))}; measure it again")
        elif found:
            used.append(run)
            predictions += load_predictions(run.predictions_file(split))
    if not used:
        return False
    results, names = outcome.outcome_of(predictions, split), rows.names()
    suffix = "" if split == "test" else f"_{split}"
    save_results(out / f"results{suffix}.json", results.everything)
    main = outcome.main_table(results, f"Policy world, split {split}", split)
    further = outcome.further_tables(results, split)
    outcome.print_tables(console, (main, *further), names)
    outcome.print_contrasts(console, results.contrasts)
    shown = [row for row in rows.SHOWN if row in results.variants]
    verdicts, counts = world_figures(predictions, split, records, shown=shown, names=names,
                                     compared=results.main_variants)
    figures = [*verdicts, *outcome.curve_figures(_curves(used), names)]
    if matrix := outcome.matrix_figure(results):
        figures.insert(0, matrix)
    save_report(out / f"report{suffix}.html", Report(
        title="guardjax: guards that follow the policy they are shown",
        subtitle=f"SafeGuard-VL in miniature, split {split} of the policy world; toy numbers, not "
                 "the paper's.",
        rows=main.rows, variants=main.variants, columns=main.columns, names=names,
        tables=further, contrasts=results.contrasts, figures=figures,
        cases=outcome.gallery_of(predictions, questions, shown, split),
        plain_tables=[*counts, *_costs(used, names)],
        provenance={"Seeds": _seeds(used), "Prompts": f"{len(questions):,} a model",
                    "Digest of the questions": digest(questions), **absent}))
    console.print(f"report: {out / f'report{suffix}.html'}")
    return True


def _curves(used: Sequence[RowRun]) -> dict[str, pathlib.Path]:
    """The metrics of the first seed of every row that is compared."""
    first = {run.row: run.folder / "metrics.jsonl" for run in reversed(used)}
    return {row: first[row] for row in rows.MAIN if row in first and row != rows.BASE}


def _costs(used: Sequence[RowRun], names: Mapping[str, str]) -> list[PlainTable]:
    lines = [spent.cells(names.get(run.row, run.row), run.seed) for run in used
             if (spent := load_cost(run.folder))]
    if not lines:
        return []
    return [PlainTable(
        "What training cost", HEAD, lines,
        "Tokens are those generated (GRPO), supervised (SFT) or scored (exact). CPU time is of "
        "all threads, compiling included.")]


def _seeds(used: Sequence[RowRun]) -> str:
    by_row: dict[str, list[str]] = {}
    for run in used:
        by_row.setdefault(run.row, []).append(str(run.seed))
    return "; ".join(f"{row} {', '.join(seeds)}" for row, seeds in by_row.items())
