"""From rows that were measured to results: numbers with intervals, contrasts, a report."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from rich.console import Console

from guardjax.cli import rows as experiment
from guardjax.eval.baselines import always
from guardjax.eval.controls import control_columns
from guardjax.eval.figures import learning_curves, series_from_rows
from guardjax.eval.gallery import Case, Picture, gallery_cases
from guardjax.eval.harness import Question
from guardjax.eval.invalid_views import invalid_table
from guardjax.eval.matrix import METRIC, by_level, level_figure
from guardjax.eval.metrics import METRICS
from guardjax.eval.records import Prediction
from guardjax.eval.report import ReportFigure, ReportTable
from guardjax.eval.summary import MINUS, contrast, summarise
from guardjax.eval.tables import (
    CHECKED_IN,
    Column,
    ResultRow,
    chance,
    columns_of,
    held_out_columns,
    layout,
    load_results,
    terminal_table,
)
from guardjax.train.metrics import read_metrics

TRIVIAL = ("always_safe", "always_unsafe")
# Metric -> pairs of variants; the first is what the experiment is about.
CONTRASTS = {
    "pss": (
        ("grpo_varied", "sft_varied"), ("grpo_varied", "base"), ("grpo_varied", "grpo_l3"),
        ("grpo_varied", "exact_varied"), ("describe_grpo_varied", "grpo_varied"),
        ("think_grpo_varied", "grpo_varied"), ("sft_varied", "base"), ("sft_l3", "base"),
        ("grpo_l3", "base"), ("grpo_l3", "sft_l3"), ("grpo_pair_varied", "grpo_varied"),
        ("bp_adapt_varied", "sft_varied"), ("bp_adapt_varied", "sft_pairs_varied"),
        ("sft_pairs_varied", "sft_varied"),
    ),
    "retention": (
        ("grpo_varied", "base"), ("grpo_varied", "sft_varied"), ("sft_varied", "base"),
        ("grpo_l3", "base"), ("grpo_l3", "sft_l3"), ("sft_l3", "base"),
        ("grpo_pair_varied", "grpo_varied"), ("bp_adapt_varied", "sft_varied"),
    ),
}
_HELD_OUT = (("pss", "PSS"), ("f1", "F1"), ("pair_accuracy", "Pair accuracy"),
             ("invalid_rate", "Invalid"))
# Title -> (key, another key that a line must have), and whether it is a share.
_PANELS = (
    ("Reward", "reward/total", "reward/total", False),
    ("Expected reward", "reward/expected", "reward/expected", False),
    ("Right verdicts", "rollout/right", "rollout/right", True),
    ("Groups without signal", "grpo/zero_variance", "grpo/zero_variance", True),
    ("Loss of SFT", "loss", "sft/likely_answers", False),
)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """All results of a run: `rows` by variant, `contrasts` between two of them."""

    rows: list[ResultRow]
    contrasts: list[ResultRow]

    @property
    def everything(self) -> list[ResultRow]:
        """What goes into `results.json`."""
        return [*self.rows, *self.contrasts]

    @property
    def variants(self) -> list[str]:
        """Variants in the order of a table: trivial ones, the experiment's, others."""
        found = dict.fromkeys(row.variant for row in self.rows)
        order = [*TRIVIAL, *experiment.GROUPS["all"]]
        return [v for v in order if v in found] + [v for v in found if v not in order]

    @property
    def main_variants(self) -> list[str]:
        """Those without the rows that only the level matrix has."""
        only_matrix = set(experiment.MATRIX) - set(experiment.MAIN)
        return [variant for variant in self.variants if variant not in only_matrix]


def outcome_of(
    predictions: Sequence[Prediction], split: str = "test", *, per_seed: bool = True,
    draws: int = 1000,
) -> Outcome:
    """Numbers of all variants, of the constant guards, and of the contrasts that are there."""
    base = [row for row in predictions if row.variant == experiment.BASE]
    everything = [*always(base, "safe"), *always(base, "unsafe"), *predictions]
    rows = summarise(everything, per_seed=per_seed, draws=draws)
    rows += summarise(by_level(everything), (METRIC,), per_seed=per_seed, draws=draws)
    there = {row.variant for row in predictions}
    contrasts = [contrast(predictions, first, second, split, metric, draws=draws)
                 for metric, pairs in CONTRASTS.items() for first, second in pairs
                 if {first, second} <= there]
    return Outcome(rows, contrasts)


def checked_in(path: str | pathlib.Path) -> Outcome | None:
    """The results of the full runs that come with the repository, labelled so; None without."""
    if not pathlib.Path(path).is_file():
        return None
    rows = load_results(path, CHECKED_IN)
    return Outcome([row for row in rows if MINUS not in row.variant],
                   [row for row in rows if MINUS in row.variant])


def further_tables(outcome: Outcome, split: str = "test") -> list[ReportTable]:
    """Tables of invalid answers, of the held-out splits and of the controls, where there are any.
    """
    variants = outcome.main_variants
    tables = [invalid_table(outcome.rows, variants, split)]
    for metric, title in _HELD_OUT:
        columns = held_out_columns(metric)
        if _filled(outcome, columns[1:]):
            tables.append(ReportTable(
                f"{title} where something is held out", outcome.rows, variants, columns,
                "Policies in unseen words, about unseen categories, of unseen shapes; pictures by "
                "another artist, on other photographs, of unseen objects. The pictures of the last "
                "three are asked under the test policies.", folded=metric != "pss"))
    worlds = [column for column in held_out_columns("retention")
              if _filled(outcome, (column,))]
    if len(worlds) > 1:
        tables.append(ReportTable("Retention where something is held out", outcome.rows, variants,
                                  worlds, folded=True))
    return tables + control_tables(outcome, split=split)


def control_tables(outcome: Outcome, note: str = "", split: str = "test") -> list[ReportTable]:
    """The table of the controls, if they have results; `note` is added to its title."""
    controls = control_columns(split)
    if not _filled(outcome, controls[1:]):
        return []
    title = "Controls: PSS with one thing taken away"
    return [ReportTable(
        f"{title} ({note})" if note else title, outcome.rows, outcome.main_variants, controls,
        "Policy shuffled: the picture is asked under another policy and scored by the true one. "
        "Image removed: the policy alone. In words: the picture's attributes as text. Fair coins "
        "get 25.")]


def main_table(outcome: Outcome, title: str, split: str = "test") -> ReportTable:
    """The experiment's table."""
    return ReportTable(title, outcome.rows, outcome.main_variants, columns_of(split))


def print_tables(console: Console, tables: Sequence[ReportTable],
                 names: Mapping[str, str] = MappingProxyType({})) -> None:
    """The tables in the terminal, except those that a report folds; an empty line after each."""
    for table in tables:
        if not table.folded:
            console.print(terminal_table(
                table.rows, table.variants, table.columns, names, table.title), "")


def print_contrasts(console: Console, contrasts: Sequence[ResultRow]) -> None:
    """The differences, one a line."""
    for row in contrasts:
        p = "" if row.p is None else f", p {chance(row.p)}"
        console.print(f"{METRICS[row.metric].title}, {row.variant}: {100 * row.value:+.1f} points "
                      f"[{100 * row.low:+.1f}, {100 * row.high:+.1f}]{p}", highlight=False,
                      markup=False, soft_wrap=True)


def matrix_figure(outcome: Outcome, note: str = "") -> ReportFigure | None:
    """The heat map, or None where no row of the matrix but those of level 3 is there."""
    if not set(outcome.variants) & (set(experiment.MATRIX) - set(experiment.MAIN)):
        return None
    figure = level_figure(outcome.rows, experiment.MATRIX_KINDS)
    if figure is None or not note:
        return figure
    return dataclasses.replace(figure, title=f"{figure.title} ({note})")


def curve_figures(metrics: Mapping[str, pathlib.Path], names: Mapping[str, str]
                  ) -> list[ReportFigure]:
    """Learning curves of the runs (variant -> its metrics file) in panels that have points."""
    lines = {variant: _from_stage_start(read_metrics(path)) for variant, path in metrics.items()}
    panels = {}
    for title, key, needed, _ in _PANELS:
        series = {names.get(variant, variant): series_from_rows(
            [line for line in own if needed in line], key) for variant, own in lines.items()}
        if any(series.values()):
            panels[title] = {name: points for name, points in series.items() if points}
    if not panels:
        return []
    return [ReportFigure(
        "Learning curves",
        learning_curves(panels, as_percent=[title for title, *_, share in _PANELS if share]),
        "On training prompts, which come in pairs with opposite labels; means over windows of "
        "steps, counted from the start of the stage.", width=340 * min(3, len(panels)))]


def gallery_of(
    predictions: Iterable[Prediction], questions: Sequence[Question], variants: Sequence[str],
    split: str = "test", limit: int = 12,
) -> list[Case]:
    """Edited pairs with what the variants said, from the first seed that all of them have."""
    examples = [q.example for q in questions if q.split == split and q.example.kind == "judge"]
    pictures = {e.image_id: Picture(e.image, e.image_id) for e in examples}
    policies = {e.policy_id: (e.policy_id, e.policy_text) for e in examples}
    judged = [row for row in predictions
              if row.judged and row.split == split and row.variant in variants]
    first = {variant: min((row.seed for row in judged if row.variant == variant), default=0)
             for variant in variants}
    return gallery_cases([row for row in judged if row.seed == first[row.variant]],
                         pictures, policies, variants=list(variants), limit=limit)


def _from_stage_start(lines: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Lines with steps counted from the start of their stage, so that rows begin together."""
    last, start, counted = None, 0, []
    for line in lines:
        if last is not None and line["stage"] != last["stage"]:
            start = last["step"]
        counted.append({**line, "step": line["step"] - start})
        last = line
    return counted


def _filled(outcome: Outcome, columns: Sequence[Column]) -> bool:
    return bool(layout(outcome.rows, outcome.main_variants, columns))
