"""Result rows: files, and tables that say where each number comes from."""

import dataclasses
import math

import pytest
from rich.console import Console

from guardjax.eval.summary import contrast, split_by_policy, summarise
from guardjax.eval.tables import (
    CHECKED_IN,
    HELD_OUT,
    THIS_RUN,
    Column,
    ResultRow,
    columns_of,
    compact,
    held_out_columns,
    load_results,
    markdown_table,
    save_results,
    terminal_table,
)
from tests.eval.fake_run import fake_predictions

COLUMNS = (Column("F1", "test", "f1"), Column("Ladder", "ladder", "macro_f1"))
ROWS = [ResultRow("grpo", "test", "f1", 0.834, 0.801, 0.86, 400),
        ResultRow("base", "test", "f1", 0.1, math.nan, math.nan, 400),
        ResultRow("grpo", "ladder", "macro_f1", math.nan, math.nan, math.nan, 5),
        ResultRow("grpo", "test", "f1", 0.5, 0.4, 0.6, 400, seed=1)]
FULL = [dataclasses.replace(ROWS[0], value=0.91, source=CHECKED_IN)]


def test_results_read_back(tmp_path):
    path = tmp_path / "results.json"
    save_results(path, ROWS)
    assert str(load_results(path)) == str(ROWS)     # NaN is not equal to itself
    assert "NaN" not in path.read_text()
    assert {row.source for row in load_results(path, CHECKED_IN)} == {CHECKED_IN}
    save_results(path, [])
    assert load_results(path) == []


@pytest.mark.parametrize("text", ["", "[]", '{"schema": 9, "rows": []}', '{"schema": 1}',
                                  '{"schema": 1, "rows": [{"variant": "x"}]}'])
def test_other_files_are_refused_by_name(tmp_path, text):
    path = tmp_path / "results.json"
    path.write_text(text)
    with pytest.raises(ValueError, match="results.json is not a results file"):
        load_results(path)


def test_compact_numbers():
    assert compact(ROWS[0]) == "83 [80–86]"
    assert compact(ROWS[0], 1) == "83.4 [80.1–86.0]"
    assert compact(ROWS[1]) == "10" and compact(ROWS[2]) == "–"


def test_markdown_in_the_order_given():
    text = markdown_table(ROWS, ["base", "missing", "grpo"], COLUMNS, {"base": "Base | model"})
    assert text.splitlines() == [
        "| Variant | F1 | Ladder |", "|---|---:|---:|",
        "| Base \\| model | 10 |  |", "| grpo | 83 [80–86] | – |"]


def test_sources_are_named_where_they_are_mixed():
    text = markdown_table(FULL + ROWS, ["base", "grpo"], COLUMNS)
    labels = [line.split(" | ")[0] for line in text.splitlines()[2:]]
    assert labels == [f"| base ({THIS_RUN})", f"| grpo ({THIS_RUN})", f"| grpo ({CHECKED_IN})"]
    assert THIS_RUN not in markdown_table(ROWS, None, COLUMNS)


def test_terminal_table_shows_the_same_cells():
    console = Console(width=120, record=True, file=open("/dev/null", "w"))
    console.print(terminal_table(FULL + ROWS, columns=COLUMNS, title="Results"))
    text = console.export_text()
    assert "83" in text and "[80–86]" in text and "grpo (full runs, checked in)" in text


def test_a_table_of_seven_columns_fits_eighty_characters():
    columns = held_out_columns("pss")
    rows = [ResultRow("grpo_varied", column.split, "pss", 1, 0.99, 1.0, 9) for column in columns]
    console = Console(width=80, record=True, file=open("/dev/null", "w"))
    console.print(terminal_table(rows, columns=columns, names={"grpo_varied": "GRPO, varied"}))
    text = console.export_text()
    assert "GRPO, varied" in text and text.count("[99–100]") == 7 and "…" not in text


def test_columns_of_another_split():
    assert {column.split for column in columns_of("dev")} == {"dev", "ladder"}
    assert {column.split for column in held_out_columns("f1")} == {"test", *HELD_OUT}


def test_summary_has_a_row_for_every_seed_and_for_all():
    rows = [row for variant in "ab" for seed in (0, 1) for split in ("test", "ladder")
            for row in fake_predictions(variant=variant, seed=seed, split=split)]
    results = summarise(rows, ("f1", "pss", "retention"), draws=20)
    assert len(results) == 2 * 2 * 3 * 3
    f1 = {row.seed: row for row in results
          if (row.variant, row.split, row.metric) == ("a", "test", "f1")}
    assert f1[None].value == pytest.approx((f1[0].value + f1[1].value) / 2)
    assert f1[None].n == f1[0].n + f1[1].n
    assert all(row.low <= row.value <= row.high for row in results)
    judged = [row for row in rows if row.judged]
    assert not summarise(judged, ("retention",), draws=5)


def test_split_by_policy_scores_each_policy_alone():
    rows = [row for seed in (0, 1) for row in fake_predictions(seed=seed, split="ladder")]
    whole, = summarise(rows, ("macro_f1",), draws=5, per_seed=False)
    each = summarise(split_by_policy(rows), ("macro_f1",), draws=5, per_seed=False)
    assert [row.split for row in each] == [f"ladder/p{i}" for i in range(6)]
    assert sum(row.value for row in each) / 6 == pytest.approx(whole.value)


def test_contrast_is_a_row():
    rows = [row for variant, skill in (("a", 0.95), ("b", 0.6)) for seed in (0, 1)
            for row in fake_predictions(variant=variant, seed=seed, skill=skill)]
    row = contrast(rows, "a", "b", "test", "pss", draws=50)
    assert row.variant == "a − b" and row.value > 0.2 and row.low < row.value < row.high
    with pytest.raises(ValueError, match="no predictions of 'c'"):
        contrast(rows, "a", "c", "test", "pss")
