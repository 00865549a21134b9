"""The page of a published table that was measured: all that the terminal says, and figures."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence

from guardjax.cli.dataset_gallery import dataset_cases
from guardjax.cli.reproduce_differences import Tests, difference_lines
from guardjax.data.datasets.reader import DatasetReader
from guardjax.eval.paper_tables import PaperTable
from guardjax.eval.report import PlainTable, Report, save_report
from guardjax.eval.reproduction import Answered
from guardjax.eval.traps import Trap
from guardjax.eval.verdict_figures import confusion_figures, pair_figures

Key = tuple[str, str]       # benchmark and split, "" for the usual one


def save_page(
    file: pathlib.Path, table: PaperTable, numbers: PlainTable, tests: Tests,
    costs: Sequence[PlainTable], answers: Mapping[str, Mapping[Key, Answered]],
    readers: Mapping[Key, DatasetReader], traps: Sequence[Trap], notes: Sequence[str],
    provenance: Mapping[str, str],
) -> None:
    """Writes one HTML file, and its figures beside it. Pictures are blurred until asked for.

    Args:
      file: where to.
      table: what was published.
      numbers: published, measured and interval side by side.
      tests: differences between models.
      costs: tokens and time.
      answers: model -> (benchmark, split) -> its answers, for figures and gallery.
      readers: of the pictures.
      traps: those of the published protocol that are switched on.
      notes: known deviations.
      provenance: hashes of data and weights.

    Raises:
      DatasetError: a picture that is to be shown cannot be opened.
    """
    tables = [numbers]
    if tests:
        head, lines = difference_lines(table, tests)
        tables.append(PlainTable("Differences", head, lines, "Points, paired over pictures; p is "
                                 "of a permutation test, not corrected for the number of lines."))
    if traps:
        tables.append(PlainTable("The published protocol", ("Trap", "Published", "Strict"), [
            (trap.name, trap.published, trap.strict) for trap in traps]))
    figures, cases = [], []
    for key in dict.fromkeys(key for found in answers.values() for key in found):
        mine = [found[key] for found in answers.values() if key in found]
        rows = [row for each in mine for row in each.rows]
        figures += [*pair_figures(rows, mine[0].group_of),
                    *confusion_figures(rows, mine[0].category_of)]
        cases += dataset_cases(rows, readers[key])
    view = "as published" if traps else "strict"
    save_report(file, Report(
        title=table.title, subtitle=f"Published in {table.source}; protocol: {view}.",
        lead=[f"{note[0].upper()}{note[1:]}." for note in notes],
        plain_tables=[*tables, *costs], figures=figures, cases=cases, provenance=provenance))
