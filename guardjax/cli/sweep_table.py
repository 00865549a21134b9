"""The one table of a sweep: what each trial changed, how well it did, what it cost."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
import pathlib
import statistics
from collections.abc import Sequence

import rich.box
from rich.table import Table

from guardjax.atomic import write_text
from guardjax.cli.cost import load_cost
from guardjax.cli.row_run import RowRun
from guardjax.cli.trials import Trial
from guardjax.eval.baselines import always
from guardjax.eval.records import LABELS, load_predictions
from guardjax.eval.report import PlainTable, Report, save_report
from guardjax.eval.summary import summarise
from guardjax.eval.tables import Column, ResultRow, columns_of, compact, percent
from guardjax.train.metrics import METRICS_FILE, read_metrics

SUMMARY_FILE = "summary.csv"
SUMMARY_PAGE = "summary.html"
_NOTE = ("Per cent with 95 % intervals; an invalid answer is wrong. Seeds: finished of those that "
         "were asked for. What training logged is the mean over seeds of its last line.")


@dataclasses.dataclass(frozen=True)
class Line:
    """Trials that differ in their seed alone; `results` and `logged` follow `Summary`'s columns.

    A constant guard has a line, too, with no seed that was asked for.
    """

    name: str
    finished: int                           # seeds that are trained (and measured, if asked)
    seeds: int                              # seeds that were asked for
    results: tuple[ResultRow | None, ...]   # over the seeds that are finished, with intervals
    logged: tuple[float, ...]               # means over those seeds of the last line; NaN: none
    cpu_seconds: float                      # the mean of a seed; NaN where none is finished


@dataclasses.dataclass(frozen=True)
class Summary:
    """All lines, the best first and the constant guards last, and the titles of their columns."""

    measured: tuple[str, ...]
    logged: tuple[str, ...]
    lines: tuple[Line, ...]


def is_finished(run: RowRun, split: str | None) -> bool:
    """Whether a trial is trained and, unless `split` is None, measured on it."""
    return load_cost(run.folder) is not None and (split is None or run.measured(split) is not None)


def world_columns(split: str) -> list[Column]:
    """What the table says of trials that are measured on the policy world."""
    return [column for column in columns_of(split) if column.metric != "f1"]


def summarise_sweep(
    out: pathlib.Path, trials: Sequence[Trial], split: str | None, metrics: Sequence[str],
    columns: Sequence[Column] = (), *, resample: Sequence[str] | None = None,
) -> Summary:
    """What is there of a sweep.

    Args:
      out: the sweep's folder.
      trials: in the order of the config file, which decides between equals.
      split: on which trials are measured, as `RowRun` names it; None where they are not.
      metrics: names of the training's log, whose last value is shown. The first column of all, in
        which more is better, decides the order: F1 or PSS, or else the first of these.
      columns: of what is measured.
      resample: what their intervals resample; see `interval`.
    """
    by_name: dict[str, list[RowRun]] = {}
    for trial in trials:
        by_name.setdefault(trial.name, []).append(RowRun(out, trial.name, trial.seed))
    done = {name: [run for run in runs if is_finished(run, split)]
            for name, runs in by_name.items()}
    answers = [row for runs in done.values() for run in runs if split
               for row in load_predictions(run.predictions_file(split))]
    first = next((runs[0] for runs in done.values() if runs), None)
    trivial = load_predictions(first.predictions_file(split)) if split and first else []
    answers += [row for label in LABELS for row in always(trivial, label)]
    found = {(row.variant, row.split, row.metric): row
             for row in summarise(answers, {column.metric for column in columns}, per_seed=False,
                              resample=resample)}

    def results(name: str) -> tuple[ResultRow | None, ...]:
        return tuple(found.get((name, column.split, column.metric)) for column in columns)

    lines = [Line(name, len(done[name]), len(runs), results(name),
                  tuple(_mean([_last(run, metric) for run in done[name]]) for metric in metrics),
                  _mean([load_cost(run.folder).cpu_seconds for run in done[name]]))
             for name, runs in by_name.items()]
    order = next((i for i, column in enumerate(columns) if column.metric in ("f1", "pss")), None)
    constant = [Line(f"always_{label}", 0, 0, results(f"always_{label}"),
                     (math.nan,) * len(metrics), math.nan) for label in LABELS if trivial]
    return Summary(tuple(column.title for column in columns), tuple(metrics),
                   (*sorted(lines, key=lambda line: _rank(line, order)), *constant))


def terminal_summary(summary: Summary, title: str) -> Table:
    """The table for `rich.console.Console.print`."""
    table = Table(title=title, title_justify="left", header_style="bold", pad_edge=False,
                  box=rich.box.SIMPLE_HEAD, show_edge=False)
    table.add_column("Trial", overflow="fold")
    for head in _heads(summary)[1:]:
        table.add_column(head.replace(" ", "\n"), justify="right")
    for name, *cells in _lines(summary):
        table.add_row(name, *(cell.replace(" [", "\n[") for cell in cells))
    return table


def save_summary_page(out: pathlib.Path, summary: Summary, title: str) -> pathlib.Path:
    """Writes `summary.html`: the table of the terminal, for whoever has a browser."""
    save_report(out / SUMMARY_PAGE, Report(
        title="guardjax: a sweep", subtitle=title,
        plain_tables=[PlainTable("Trials", _heads(summary), _lines(summary), _NOTE)]))
    return out / SUMMARY_PAGE


def _heads(summary: Summary) -> tuple[str, ...]:
    return ("Trial", "Seeds", *summary.measured, *summary.logged, "CPU s")


def _lines(summary: Summary) -> list[tuple[str, ...]]:
    return [(line.name, f"{line.finished}/{line.seeds}" if line.seeds else "–",
             *(compact(cell) if cell else "–" for cell in line.results),
             *(_number(value) for value in (*line.logged, line.cpu_seconds)))
            for line in summary.lines]


def save_summary(out: pathlib.Path, summary: Summary) -> pathlib.Path:
    """Writes `summary.csv` in one step: shares as per cent with their intervals beside them."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    heads = [head for title in summary.measured for head in (title, f"{title} low",
                                                             f"{title} high")]
    writer.writerow(["Trial", "Seeds finished", "Seeds", *heads, *summary.logged, "CPU s"])
    for line in summary.lines:
        cells = [percent(value, 1) if cell else "" for cell in line.results
                 for value in ((cell.value, cell.low, cell.high) if cell else (0, 0, 0))]
        writer.writerow([line.name, line.finished, line.seeds, *cells,
                         *(_number(value) for value in (*line.logged, line.cpu_seconds))])
    write_text(out / SUMMARY_FILE, text.getvalue())
    return out / SUMMARY_FILE


def _last(run: RowRun, metric: str) -> float:
    """The metric's last value in the training's log, which is the mean over a window of steps."""
    values = [line[metric] for line in read_metrics(run.folder / METRICS_FILE)
              if line.get(metric) is not None]
    return values[-1] if values else math.nan


def _mean(values: Sequence[float]) -> float:
    return statistics.fmean(values) if values else math.nan


def _rank(line: Line, column: int | None) -> float:
    """Smaller is better; what is not known goes last."""
    if column is not None:
        value = line.results[column].value if line.results[column] else math.nan
    else:
        value = line.logged[0] if line.logged else math.nan
    return math.inf if math.isnan(value) else -value


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.4g}"
