"""What a published table's columns are made of, and their numbers from answers to the real data.

The stand-in on the policy world is in `paper_tables.py`; this is the table itself.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from guardjax.data.datasets.reader import DatasetReader
from guardjax.data.datasets.record import example_id
from guardjax.eval.bootstrap import Interval
from guardjax.eval.dataset_results import group_of, unit_of
from guardjax.eval.paired_test import PairedTest
from guardjax.eval.protocol import NothingLeft, Outputs, Protocol, against, number
from guardjax.eval.records import Prediction
from guardjax.policies import LADDER_LEVELS

# Rows of the test splits as their authors state them: another number is another data set.
PUBLISHED_ROWS: Mapping[str, int] = MappingProxyType(
    {"safeeditbench": 601, "unsafebench": 2037, "llavaguard": 824})
_GENERAL = "General is measured through lmms-eval, which has guardjax as a model"
# What UnsafeBench's published table leaves out.
_NOT_SHOWN = frozenset({"Harassment", "Public and personal health"})


@dataclasses.dataclass(frozen=True)
class Source:
    """One column: the metric on rows of a benchmark, all or those of a category or a policy.

    `split` is "" for the benchmark's usual one. `mean_of` are places of other columns whose mean
    it is, and `parts` are such that are not shown; `elsewhere` says why it is not measured.
    """

    dataset: str = ""
    metric: str = "f1"
    split: str = ""
    category: str = ""
    policy: str = ""
    mean_of: tuple[int, ...] = ()
    parts: tuple[Source, ...] = ()
    elsewhere: str = ""

    @property
    def asked(self) -> tuple[tuple[str, str], ...]:
        """(benchmark, split) of all that it is made of."""
        own = ((self.dataset, self.split),) if self.dataset else ()
        return own + tuple(pair for part in self.parts for pair in part.asked)


def _unsafe_bench(category: str = "") -> Source:
    return Source("unsafebench", "f1", category=category)


_SHIFT = ("accuracy", "f1", "pss")
# Policies of training, and policies that were held out: "Adaptive" and "Shift" in the paper.
_SHIFT_SPLITS = ("id_test", "ood_test")


def _shift(metric: str, split: str) -> Source:
    return Source("policyshiftbench", metric, split)


_LADDER = Source("safeeditbench", "macro_f1")
# A source a column, in the order of `PaperTable.columns`.
SOURCES: Mapping[str, tuple[Source, ...]] = MappingProxyType({
    "safeguard_vl_table2": (*map(_unsafe_bench, (
        "Hate", "Violence", "Self-harm", "Sexual", "Shocking", "Illegal activity", "Deception",
        "Political", "Spam")), _unsafe_bench()),
    "safeguard_vl_table3": tuple(Source("safeeditbench", "macro_f1", policy=level)
                                 for level in LADDER_LEVELS),
    "safeguard_vl_table4": (Source("llavaguard"), _unsafe_bench(), _LADDER,
                            Source(mean_of=(0, 1, 2)), *5 * (Source(elsewhere=_GENERAL),)),
    "safeguard_vl_table5": (_unsafe_bench(), Source(elsewhere=_GENERAL)),
    "safeguard_vl_table6": (_LADDER,),
    "policyshiftguard_main": (
        *(_shift(metric, split) for split in _SHIFT_SPLITS for metric in _SHIFT),
        *(Source(mean_of=(place, place + 3)) for place in range(3))),
    "policyshiftguard_plus": tuple(
        Source(parts=tuple(_shift(metric, split) for split in _SHIFT_SPLITS))
        for metric in _SHIFT),
})


def asked_of(table: str) -> list[tuple[str, str]]:
    """(benchmark, split) of all columns of a table, each once; "" is the usual split."""
    return list(dict.fromkeys(pair for source in SOURCES[table] for pair in source.asked))


@dataclasses.dataclass(frozen=True)
class Answered:
    """A benchmark's answers by one model, with what its rows say of category and policy."""

    rows: Sequence[Prediction]
    category_of: Mapping[str, str]      # example id -> category, "" without one
    group_of: Mapping[str, str]         # example id -> policy's name in tables
    unit_of: Mapping[str, str]          # example id -> what policies are compared on (`unit_of`)

    @classmethod
    def of(cls, reader: DatasetReader, rows: Sequence[Prediction]) -> Answered:
        """The answers to a reader's rows."""
        records = {example_id(record): record for record in reader.records}
        return cls(rows, {name: record.category for name, record in records.items()},
                   {name: group_of(record) for name, record in records.items()},
                   {name: unit for name, record in records.items() if (unit := unit_of(record))})


def table_line(sources: Sequence[Source], answered: Mapping[tuple[str, str], Answered],
               protocol: Protocol, *, draws: int = 1000) -> list[Interval | None]:
    """One model's numbers, one a column; None where the data are not there or it has none.

    Args:
      sources: of the columns.
      answered: (benchmark, split as `Source` has it) -> the model's answers.
      protocol: how answers are counted; see `on_published`.
      draws: of the bootstrap over pictures.
    """
    cells: list[Interval | None] = []
    for source in sources:
        found = None
        if (source.dataset, source.split) in answered:
            found = _cell(source, answered[source.dataset, source.split], protocol, draws)
        elif source.mean_of:
            found = _mean([cells[place] for place in source.mean_of])
        elif source.parts:
            found = _mean(table_line(source.parts, answered, protocol, draws=draws))
        cells.append(found)
    return cells


def on_published(protocol: Protocol, dataset: str) -> Protocol:
    """The protocol on the published files, where the authors' own losses have happened already.

    SafeEditBench is what is left of its rows, and UnsafeBench's two categories that the table does
    not show are known by name.
    """
    if protocol.without and dataset == "unsafebench":
        protocol = dataclasses.replace(protocol, without=_NOT_SHOWN)
    elif protocol.without:
        protocol = dataclasses.replace(protocol, without=frozenset())
    return dataclasses.replace(protocol, lost_rows=False)


def table_differences(
    sources: Sequence[Source], answered: Mapping[tuple[str, str], Answered],
    others: Mapping[tuple[str, str], Answered], protocol: Protocol,
) -> list[PairedTest | None]:
    """One model minus another, one a column; None for a mean of columns and where nothing is known.
    """
    tests: list[PairedTest | None] = []
    for source in sources:
        key, found = (source.dataset, source.split), None
        if key in answered:
            found = against(*(_outputs(source, each[key]) for each in (answered, others)),
                            on_published(protocol, source.dataset), source.metric)
        tests.append(found)
    return tests


def _outputs(source: Source, answered: Answered) -> Outputs:
    """The answers that a column is made of."""
    rows = [dataclasses.replace(row, policy_id=answered.group_of[row.example_id])
            for row in answered.rows
            if source.category in ("", answered.category_of[row.example_id])
            and source.policy in ("", answered.group_of[row.example_id])]
    category_of = {row.image_id: answered.category_of[row.example_id] for row in rows}
    return Outputs(rows, rows, category_of, answered.unit_of)


def _cell(source: Source, answered: Answered, protocol: Protocol, draws: int) -> Interval | None:
    outputs = _outputs(source, answered)
    try:
        return number(outputs, on_published(protocol, source.dataset), source.metric, draws=draws)
    except NothingLeft:
        return None


def _mean(cells: Sequence[Interval | None]) -> Interval | None:
    """A mean of columns; the same pictures are in several of them, so it has no interval."""
    if any(cell is None or math.isnan(cell.value) for cell in cells):
        return None
    return Interval(sum(cell.value for cell in cells) / len(cells), math.nan, math.nan,
                    sum(cell.n for cell in cells))
