"""A published table on its own data with real weights: published, measured, interval."""

from __future__ import annotations

import argparse
import functools
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console

from guardjax.cli.answer_cost import COST_FILE, answer_cost, show_costs, time_file
from guardjax.cli.assets import model_dir
from guardjax.cli.dataset_answers import all_answers, open_answers
from guardjax.cli.reproduce_differences import against_first, difference_grid, differences_as_json
from guardjax.cli.reproduce_page import save_page
from guardjax.cli.reproduce_table import HEAD, cells_as_json, grid_lines, side_by_side
from guardjax.cli.scoring_flags import scoring_of, way_of_asking
from guardjax.data.batching import load_batcher
from guardjax.data.datasets.batches import check_fits
from guardjax.data.datasets.reader import DatasetReader
from guardjax.data.datasets.record import LABELS
from guardjax.data.datasets.registry import SCHEMAS, open_dataset
from guardjax.eval.answer_file import AnswerFile
from guardjax.eval.baselines import always
from guardjax.eval.bootstrap import Interval
from guardjax.eval.guard import Guard, check_trained_as, weights_hash
from guardjax.eval.paper_tables import PaperTable
from guardjax.eval.protocol import for_constant
from guardjax.eval.report import PlainTable
from guardjax.eval.reproduction import (
    PUBLISHED_ROWS,
    SOURCES,
    Answered,
    asked_of,
    table_line,
)
from guardjax.eval.scoring import REASONED, Scoring, answer_tokens
from guardjax.eval.traps import Trap, protocol_of
from guardjax.json_file import write_json
from guardjax.train.compilation import enable_compile_cache

_OWN_PROMPT = ("prompts and verdict grammar are guardjax's, not the authors': weights that were "
               "trained on other words are measured out of theirs")
_NOT_WRITTEN = ("published numbers are of written answers; here verdicts are scored by {}, which "
                "cites no rules and skips a rationale")
_ON_STORED = {
    "full_from_base": "needs answers of stage 2 alone beside those of both: changes nothing here",
    "lost_rows": "the published files are what is left already: changes nothing here",
    "one_seed": "there is one run of each model: it loses its interval, no more",
}


class ReproduceError(ValueError):
    """Data or weights that the table has no place for, or that are not given."""


def show_measured(console: Console, table: PaperTable, args: argparse.Namespace,
                  traps: Sequence[Trap]) -> int:
    """Asks what is not stored, prints the table and writes it to `OUT/TABLE[-compat]`, .json and
    .html.

    Raises:
      ReproduceError: see there; nothing was read or asked.
      DatasetError: a benchmark is not there, or is not as published; says how to get it.
      ScoringError, PromptError: a model cannot be asked so; nothing was asked.
      AnswersMismatch: OUT has answers of other weights, to other rows or asked for otherwise;
        nothing was asked.
    """
    folders = _named(args.data, "--data", "FORMAT", table.benchmarks)
    weights = _named(args.model, "--model", "NAME", table.rows or table.stand_in)
    _check_whole(table, folders, weights, args.out)
    out = pathlib.Path(args.out)
    readers = {(name, split): open_dataset(name, folders[name], split, missing=args.missing)
               for name, split in asked_of(table.name) if name in folders}
    hashes = {name: weights_hash(model_dir(folder)) for name, folder in weights.items()}
    scoring = scoring_of(args)
    templates = {name: _template(pathlib.Path(model_dir(folder)), scoring, args.template)
                 for name, folder in weights.items()}
    _say_what_is_there(console, table, readers, hashes)
    stored = {model: {key: open_answers(out.joinpath(*key), reader, model, hashes[model],
                                        way_of_asking(args, scoring, templates[model]))
                      for key, reader in readers.items()} for model in weights}
    enable_compile_cache()
    answers = {}
    for model, files in stored.items():
        load = functools.cache(lambda model=model: Guard.load(
            model_dir(weights[model]), dtype=args.dtype, attention=args.attention,
            scoring=scoring, template=args.template))
        answers[model] = _ask(files, readers, load, out, console)
    first = next(iter(answers.values()))
    constant = {f"always {label}": {name: Answered.of(readers[name], always(each.rows, label))
                                    for name, each in first.items()} for label in LABELS}
    categories = sorted({name for each in first.values() for name in each.category_of.values()
                         if name})
    protocol = protocol_of(traps, categories)
    lines = {model: table_line(SOURCES[table.name], answered,
                               for_constant(protocol) if model in constant else protocol)
             for model, answered in {**constant, **answers}.items()}
    view = "compat" if traps else "strict"
    console.print(side_by_side(table, lines, f"{view}, scoring {scoring}"))
    tests = against_first(table, answers, protocol)
    if tests:
        console.print(difference_grid(table, tests))
    costs = show_costs(console, {
        f"{model}, {_called(key)}": answer_cost(each.rows, time_file(out, stored[model][key]))
        for model, found in answers.items() for key, each in found.items()},
        out / f"{table.name}-{COST_FILE}")
    not_written = [_NOT_WRITTEN.format(scoring.mode)] if scoring.mode != REASONED else []
    notes = (*table.deviations, *_elsewhere(table), _OWN_PROMPT, *not_written)
    for note in notes:
        console.print(f"  note: {note}", highlight=False, markup=False)
    for trap in traps:
        on_data = f" ({_ON_STORED[trap.name]})" if trap.name in _ON_STORED else ""
        console.print(f"  published protocol, {trap.name}: {trap.published}; strict: {trap.strict}"
                      f"{on_data}", highlight=False, markup=False)
    file = out / f"{table.name}{'-compat' if traps else ''}.json"
    write_json(file, _as_json(table, lines, readers, hashes, templates, scoring, traps)
               | {"differences": differences_as_json(table, tests)})
    page = file.with_suffix(".html")
    save_page(page, table, PlainTable("Published and measured", HEAD, grid_lines(table, lines)),
              tests, costs, answers, readers, traps, notes, {
                  **{f"Rows of {_called(key)}": reader.digest_with_pictures
                     for key, reader in readers.items()},
                  **{f"Weights of {name}": found for name, found in hashes.items()}})
    console.print(f"table: {file}, {page}", highlight=False, markup=False)
    return 0


def _named(given: Sequence[str], flag: str, what: str, known: Iterable[str]) -> dict[str, str]:
    """NAME=DIR, ... as a mapping. A name may hold "=" no more than a table's names do."""
    found: dict[str, str] = {}
    for text in given:
        name, equals, folder = text.partition("=")
        if not equals or not folder:
            raise ReproduceError(f"{flag} {text!r} is not {what}=DIR")
        if name not in known:
            raise ReproduceError(f"{flag} {name!r} is none of the table's: "
                                 + ", ".join(map(repr, known)))
        if name in found:
            raise ReproduceError(f"{flag} {name!r} is given twice: {found[name]} and {folder}")
        found[name] = folder
    return found


def _check_whole(table: PaperTable, folders: Mapping[str, str], weights: Mapping[str, str],
                 out: str | None) -> None:
    if not folders:
        raise ReproduceError("weights without data: give --data FORMAT=DIR. " + "\n".join(
            SCHEMAS[name].how_to_get(pathlib.Path(SCHEMAS[name].title))
            for name in table.benchmarks))
    if not weights:
        names = ", ".join(map(repr, table.rows or table.stand_in))
        raise ReproduceError(f"data without weights: give --model NAME=DIR, NAME of {names}")
    if not out:
        raise ReproduceError("give --out DIR, where answers are kept so that none is asked twice")


def _template(folder: pathlib.Path, scoring: Scoring, asked: str | None) -> str:
    """The template of a model that can be asked so; its weights are not read."""
    batcher = load_batcher(folder)
    if asked is not None:
        check_trained_as(folder, batcher.template, asked)
    if scoring.mode != REASONED:
        answer_tokens(batcher.tokenizer.untrusted)
    return batcher.template


_Key = tuple[str, str]      # benchmark and split, "" for the usual one


def _called(key: _Key) -> str:
    return ", ".join(part for part in key if part)


def _say_what_is_there(console: Console, table: PaperTable,
                       readers: Mapping[_Key, DatasetReader], hashes: Mapping[str, str]) -> None:
    for (name, _), reader in readers.items():
        line = (f"{name}: {len(reader)} rows of split {reader.split}, "
                f"hash {reader.digest_with_pictures}")
        published = PUBLISHED_ROWS.get(name)
        if published not in (None, len(reader)):
            line += f"; published are {published}: not the same data"
        if reader.dropped:
            line += f"; {len(reader.dropped)} left out"
        console.print(line, highlight=False, markup=False)
    for name in table.benchmarks:
        if name not in {given for given, _ in readers}:
            schema = SCHEMAS[name]
            console.print(f"{name}: not given, its columns stay empty. "
                          + schema.how_to_get(pathlib.Path(schema.title)),
                          highlight=False, markup=False)
    for name, found in hashes.items():
        console.print(f"{name}: weights {found}", highlight=False, markup=False)


def _ask(files: Mapping[_Key, AnswerFile], readers: Mapping[_Key, DatasetReader],
         load: Callable[[], Guard], out: pathlib.Path, console: Console) -> dict[_Key, Answered]:
    """A model's answers to all benchmarks; policies that do not fit are refused before any."""
    for name, file in files.items():
        if file.missing:
            check_fits(readers[name], load().batcher)
    return {name: Answered.of(readers[name], all_answers(file, readers[name], load, out, console))
            for name, file in files.items()}


def _elsewhere(table: PaperTable) -> list[str]:
    return list(dict.fromkeys(source.elsewhere for source in SOURCES[table.name]
                              if source.elsewhere))


def _as_json(table: PaperTable, lines: Mapping[str, Sequence[Interval | None]],
             readers: Mapping[_Key, DatasetReader], hashes: Mapping[str, str],
             templates: Mapping[str, str], scoring: Scoring, traps: Sequence[Trap]
             ) -> dict[str, Any]:
    return {
        "table": table.name, "protocol": [trap.name for trap in traps] or "strict",
        "scoring": str(scoring), "templates": dict(templates),
        "data": {_called(key): {"split": reader.split, "rows": len(reader),
                                "hash": reader.digest_with_pictures}
                 for key, reader in readers.items()},
        "models": dict(hashes),
        "cells": cells_as_json(table, lines)}
