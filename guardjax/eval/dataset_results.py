"""A guard's numbers on annotated pictures: overall, by policy, by category.

Intervals resample pictures alone: the policies of a benchmark are its own, not a sample. All rows
with one picture are drawn together. The metrics are those of `metrics.py` (equal to scikit-learn's,
tests/eval/test_metrics.py); an invalid answer is wrong for either label.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType

from guardjax.data.datasets.reader import DatasetReader
from guardjax.data.datasets.record import LABELS, Record, to_example
from guardjax.eval.baselines import always
from guardjax.eval.bootstrap import interval
from guardjax.eval.cells import tabulate_runs
from guardjax.eval.guard import Guard
from guardjax.eval.harness import Question, ask
from guardjax.eval.invalid_views import METRICS as INVALID_VIEWS
from guardjax.eval.invalid_views import invalid_table
from guardjax.eval.metrics import METRICS
from guardjax.eval.records import Prediction
from guardjax.eval.report import ReportTable
from guardjax.eval.tables import Column, ResultRow

OVERALL = (*INVALID_VIEWS, "balanced_accuracy", "macro_f1", "pss", "consistency", "pair_accuracy",
           "flip_pair_accuracy")
# Where rows say which policy is an exception: what LlavaGuard's paper prints beside it.
WITH_EXCEPTIONS = ("per", "pes")
# F1 where there are positives, else accuracy: what the papers print of one policy.
BY_GROUP = ("macro_f1", "accuracy")
_COLUMNS_SHOWN = 12
_BY_CATEGORY = "policyshiftbench"   # whose PSS is by (picture, category)
_BY_VARIANT = ("llavaguard", "policyshiftbench")    # whose policies are too many for a table


def group_of(record: Record) -> str:
    """The name of a record's policy in a table."""
    if record.dataset in _BY_VARIANT:
        return record.variant or "default"
    return record.policy.id


def unit_of(record: Record) -> str:
    """What policies are held against each other on: a picture, or of PolicyShiftBench a picture in
    one of its categories, as its authors have it; "" where the picture alone says it."""
    return f"{record.image_id}/{record.category}" if record.dataset == _BY_CATEGORY else ""


def answer_rows(guard: Guard, reader: DatasetReader, variant: str, places: Sequence[int]
                ) -> Iterator[list[Prediction]]:
    """Asks the rows at `places`; what comes is a batch, and one batch of pictures is in memory.

    Raises:
      DatasetError: a picture cannot be opened.
    """
    for start in range(0, len(places), guard.batch):
        questions = [Question(reader.split, to_example(reader[i]))
                     for i in places[start:start + guard.batch]]
        yield ask(guard, questions, variant=variant)


def dataset_rows(
    predictions: Sequence[Prediction], groups: Mapping[str, str], *, exceptions: bool = False,
    units: Mapping[str, str] = MappingProxyType({}), draws: int = 1000, seed: int = 0,
) -> list[ResultRow]:
    """All numbers of all variants, and of the two constant answers.

    Args:
      predictions: of one split; a variant a model.
      groups: example id -> name of its policy in tables, as `group_of` gives it.
      exceptions: whether policies are exceptions to a usual one, as LlavaGuard's are.
      units: example id -> what policies are compared on, where that is not the picture.
      draws, seed: of the bootstrap.
    """
    everything, split = with_constant(predictions), predictions[0].split
    # What is one policy to a table is one to the mean over policies, too.
    grouped = [dataclasses.replace(row, policy_id=groups[row.example_id]) for row in everything]
    overall = [name for name in OVERALL if name != "macro_f1"]
    if exceptions:
        overall += WITH_EXCEPTIONS
    rows = _rows(everything, overall, draws, seed, units)
    rows += _rows(grouped, ("macro_f1",), draws, seed)
    for group in sorted(set(groups.values())):
        part = [dataclasses.replace(row, split=f"{split}/{group}")
                for row in grouped if row.policy_id == group]
        rows += _rows(part, BY_GROUP, draws, seed)
    return rows


def with_constant(predictions: Sequence[Prediction]) -> list[Prediction]:
    """The predictions after those of the two constant answers to the same rows."""
    mine = [row for row in predictions if row.variant == predictions[0].variant]
    return [*(row for label in LABELS for row in always(mine, label)), *predictions]


def category_rows(
    predictions: Sequence[Prediction], categories: Mapping[str, str], *, draws: int = 1000,
    seed: int = 0,
) -> list[ResultRow]:
    """F1 (accuracy, without positives) of each category, as splits "SPLIT/category NAME".

    `categories` maps example ids; rows without one are in none. The constant answers are there,
    too.
    """
    rows, everything = [], with_constant(predictions)
    for name in sorted(set(categories.values())):
        part = [dataclasses.replace(row, split=f"{row.split}/category {name}", policy_id="all")
                for row in everything if categories.get(row.example_id) == name]
        rows += _rows(part, ("macro_f1",), draws, seed)
    return rows


def dataset_tables(rows: Sequence[ResultRow], split: str) -> list[ReportTable]:
    """The rows laid out: overall first, then by policy and by category where there are several."""
    variants = list(dict.fromkeys(row.variant for row in rows))
    splits = list(dict.fromkeys(row.split for row in rows))
    tables = [ReportTable("Overall", rows, variants, [
        Column("F1", split, "f1"), Column("Accuracy", split, "accuracy"),
        Column("Macro-F1", split, "macro_f1"), Column("PSS", split, "pss"),
        Column("Invalid", split, "invalid_rate")],
        "An invalid answer is wrong. Intervals: 95 %, bootstrap over pictures."),
        invalid_table(rows, variants, split)]
    if any(row.metric == "pair_accuracy" for row in rows):
        tables.append(ReportTable("Edited pairs", rows, variants, [
            Column(METRICS[name].title, split, name)
            for name in ("pair_accuracy", "flip_pair_accuracy")],
            "A pair under a policy counts where both of its pictures are judged rightly."))
    if any(row.metric in WITH_EXCEPTIONS for row in rows):
        tables.append(ReportTable("Exceptions to the usual policy", rows, variants, [
            Column(METRICS[name].title, split, name)
            for name in ("balanced_accuracy", *WITH_EXCEPTIONS)],
            "PER: accuracy on pictures that this policy allows and another one of the data "
            "forbids. PES: its harmonic mean with balanced accuracy; always safe has 67."))
    by_category = [name for name in splits if name.startswith(f"{split}/category ")]
    by_policy = [name for name in splits if "/" in name and name not in by_category]
    for title, names in (("By policy", by_policy), ("By category", by_category)):
        if len(names) < 2:
            continue
        note = "F1 of unsafe; accuracy where no row is unsafe."
        if len(names) > _COLUMNS_SHOWN:
            note += f" The first {_COLUMNS_SHOWN} of {len(names)}; results.json has all."
        tables.append(ReportTable(title, rows, variants, [
            Column(name.rpartition("/")[2].removeprefix("category "), name, "macro_f1")
            for name in names[:_COLUMNS_SHOWN]], note))
    return tables


def _rows(
    predictions: Iterable[Prediction], metrics: Sequence[str], draws: int, seed: int,
    units: Mapping[str, str] = MappingProxyType({}),
) -> list[ResultRow]:
    found: dict[tuple[str, str], list[Prediction]] = {}
    for row in predictions:
        found.setdefault((row.variant, row.split), []).append(row)
    rows = []
    for (variant, split), group in found.items():
        runs = tabulate_runs(group, unit_of=units)
        for name in metrics:
            result = interval(METRICS[name], runs, draws=draws, seed=seed, resample=("scenes",))
            if result.n:
                rows.append(ResultRow(variant, split, name, result.value, result.low, result.high,
                                      result.n))
    return rows
