"""`guardjax eval --dataset`: models on annotated pictures, with a table and a page."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence

from rich.console import Console

from guardjax.cli import outcome
from guardjax.cli.answer_cost import COST_FILE, answer_cost, show_costs, time_file
from guardjax.cli.calibration_table import show_calibration
from guardjax.cli.dataset_answers import all_answers, open_answers
from guardjax.cli.dataset_gallery import dataset_cases
from guardjax.data.datasets.batches import check_fits
from guardjax.data.datasets.reader import DatasetReader
from guardjax.eval.answer_file import check_only
from guardjax.eval.answer_parts import Part
from guardjax.eval.dataset_contrasts import dataset_contrasts
from guardjax.eval.dataset_results import (
    category_rows,
    dataset_rows,
    dataset_tables,
    group_of,
    unit_of,
)
from guardjax.eval.guard import Guard
from guardjax.eval.records import Prediction, save_predictions
from guardjax.eval.report import PlainTable, Report, save_report
from guardjax.eval.tables import save_results
from guardjax.eval.verdict_figures import (
    confusion_figures,
    confusion_tables,
    curve_figures,
    pair_figures,
)

ANSWERS = "answers"


def evaluate_dataset(
    guards: Mapping[str, Guard], reader: DatasetReader, out: pathlib.Path, console: Console,
    title: str = "", *, asked: str = "", part: Part = Part(),
) -> None:
    """Asks each guard every row; writes predictions, results and report, and prints the tables.

    Answers are stored as they come in `out/answers`; after an interruption the same call goes on.
    Of a part of the rows there are answers only: whoever asks for all counts them.

    Args:
      guards: name in the tables -> model, in the order of the tables.
      reader: what is asked.
      out: folder for `predictions.jsonl`, `results.json`, `report.html` and its `figures`.
      console: where the tables go.
      title: of the page; by default that of the data set.
      asked: options that change an answer.
      part: of the rows, what this process asks.

    Raises:
      AnswersMismatch: `out` has answers of other models, or to other rows; nothing is asked.
      DatasetError: a picture cannot be opened.
      PromptError: a policy does not fit into a prompt; nothing is computed or written.
    """
    for guard in guards.values():
        check_fits(reader, guard.batcher)
    folder = out / ANSWERS
    check_only(folder, {name: guard.model_hash for name, guard in guards.items()})
    stored = {name: open_answers(folder, reader, name, guard.model_hash, asked, part)
              for name, guard in guards.items()}
    predictions: list[Prediction] = []
    for name, guard in guards.items():
        predictions += all_answers(stored[name], reader, lambda guard=guard: guard, out, console)
    if part != Part():
        console.print(f"{part}: {len(predictions):,} answers are in {folder}. When all parts are, "
                      "the same command without --part counts them.", markup=False,
                      highlight=False, soft_wrap=True)
        return
    ids = [row.example_id for row in predictions[:len(reader)]]
    by_id = dict(zip(ids, reader.records, strict=True))
    groups = {i: group_of(record) for i, record in by_id.items()}
    units = {i: unit for i, record in by_id.items() if (unit := unit_of(record))}
    rows = dataset_rows(predictions, groups, exceptions=reader.schema.name == "llavaguard",
                        units=units)
    contrasts = dataset_contrasts(predictions, groups, units=units)
    categories = {i: record.category for i, record in by_id.items() if record.category}
    if len({by_id[i].label for i in categories}) == 2:  # else it names what is unsafe, no more
        rows += category_rows(predictions, categories)
    save_predictions(out / "predictions.jsonl", predictions)
    save_results(out / "results.json", [*rows, *contrasts])
    tables = dataset_tables(rows, reader.split)
    outcome.print_tables(console, tables)
    outcome.print_contrasts(console, contrasts)
    calibration = show_calibration(console, predictions, out)
    costs = show_costs(console, {
        name: answer_cost([row for row in predictions if row.variant == name],
                          time_file(out, stored[name])) for name in guards}, out / COST_FILE)
    main = tables[0]
    save_report(out / "report.html", Report(
        title=title or f"{reader.schema.title}, {reader.split}",
        subtitle=f"{len(reader):,} rows of {reader.directory}.",
        rows=main.rows, variants=main.variants, columns=main.columns, resampled="over pictures",
        tables=tables[1:], contrasts=contrasts,
        plain_tables=[*confusion_tables(predictions, categories), *calibration, *costs,
                      _counts(reader), *_left_out(reader)],
        figures=[*pair_figures(predictions, groups), *confusion_figures(predictions, categories),
                 *curve_figures(predictions)],
        cases=dataset_cases(predictions, reader),
        provenance={**{f"Model {name}": guard.model_hash for name, guard in guards.items()},
                    "Rows": f"{reader.digest_with_pictures} (hash of ids, labels, policies and "
                            "pictures)",
                    **({"Note": reader.schema.notes} if reader.schema.notes else {})}))
    console.print(f"report: {out / 'report.html'}", markup=False, highlight=False)


def _counts(reader: DatasetReader) -> PlainTable:
    counts: dict[str, list[int]] = {}
    for record in reader.records:
        counts.setdefault(group_of(record), [0, 0])[record.label == "unsafe"] += 1
    return PlainTable("Rows by policy", ("Policy", "safe", "unsafe"), [
        (name, str(safe), str(unsafe)) for name, (safe, unsafe) in sorted(counts.items())])


def _left_out(reader: DatasetReader) -> Sequence[PlainTable]:
    if not reader.dropped:
        return ()
    return (PlainTable("Rows left out", ("Row",), [(each,) for each in reader.dropped],
                       f"{len(reader.dropped)} rows are in no number above."),)
