"""The verb reproduce: published numbers, the stand-in's, and the traps, on stored answers."""

import hashlib
import json
import pathlib

import pytest

from guardjax.cli import measure, reproduce, rows, stand_in
from guardjax.eval.paper_tables import TABLES
from guardjax.eval.records import Prediction, save_predictions
from guardjax.eval.traps import TRAPS
from guardjax.train.config import to_text

REPOSITORY = pathlib.Path(__file__).parents[2]


def stored(folder, row, seed, right):
    """Answers of a row to ten pictures, each under two levels and a test policy."""
    rows = []
    for picture in range(10):
        common = {"model": "m", "variant": row, "seed": seed, "kind": "judge",
                  "image_id": f"test-{picture:05}-before", "pair_id": f"test-{picture:05}"}
        for split, policy, gold in (("ladder", "ladder-L1", "safe"), ("test", "p1", "safe"),
                                    ("ladder", "ladder-L3", "unsafe"), ("test", "p2", "unsafe")):
            outcome = gold if picture < right else "needs_review"
            rows.append(Prediction(
                **common, split=split, example_id=f"{picture}/{policy}", policy_id=policy,
                label=gold, output=f"<answer>{outcome}: R1</answer>", outcome=outcome,
                problem=None if picture < right else "unknown_word"))
        rows.append(Prediction(
            **common | {"kind": "caption"}, split="test", example_id=f"{picture}/caption",
            answer="a cup", output="a cup" if picture % 2 else "a pan"))
    run = folder / row / f"seed{seed}"
    run.mkdir(parents=True)
    save_predictions(run / "predictions.jsonl", rows)
    (run / "measured_test.json").write_text(json.dumps({"model": "m", "questions": "q"}))


@pytest.fixture(name="runs")
def _runs(tmp_path, monkeypatch):
    # Which category a picture is of has a test of its own.
    monkeypatch.setattr(stand_in, "categories", lambda: {
        f"test-{picture:05}-before": "weapons" if picture % 2 else "alcohol"
        for picture in range(10)})
    for row, seeds in (("base", 1), ("sft_l3", 2), ("grpo_l3", 2), ("grpo_varied", 2)):
        for seed in range(seeds):
            stored(tmp_path, row, seed, right=5 + seed + 2 * (row == "grpo_varied"))
    return tmp_path


def line_of(text, start):
    return next(line for line in text.splitlines() if line.startswith(start)).split()


def test_all_tables_are_listed(said):
    status, out, _ = said("reproduce", "--list")
    assert status == 0 and all(name in out for name in (*TABLES, "traps"))
    # All that --data, --model and --compat may name.
    for table in TABLES.values():
        assert all(repr(row) in out for row in table.rows or table.stand_in)
        assert all(name in out for name in table.benchmarks)
    for trap in TRAPS:
        named = trap.name + " (in 'paper')" * trap.in_tables
        assert f"    {named}: {trap.published}\n" in out


def test_tables_know_their_columns():
    for table in TABLES.values():
        assert all(len(cells) == len(table.columns) for cells in table.rows.values())
        assert set(table.stand_in) <= set(table.rows) or not table.rows
        assert table.deviations and table.stand_in and table.stand_in_columns


def test_a_mean_that_the_paper_states_is_the_mean_of_its_columns():
    for cells in TABLES["safeguard_vl_table4"].rows.values():
        assert sum(cells[:3]) / 3 == pytest.approx(cells[3], abs=0.02)
        assert sum(cells[4:8]) / 4 == pytest.approx(cells[8], abs=0.02)


def test_the_kept_results_stand_in(said, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    status, out, _ = said("reproduce", "safeguard_vl_table6")
    assert status == 0 and "toy numbers" in out
    assert line_of(out, "SafeGuard-VL (RL) ")[-1] == "45.59"
    kept = json.loads((REPOSITORY / reproduce.RESULTS).read_text())["rows"]
    value = next(row["value"] for row in kept if row["variant"] == "grpo_l3" and row["seed"] is None
                 and (row["split"], row["metric"]) == ("ladder", "macro_f1"))
    assert f" {100 * value:.1f} [" in out
    config = hashlib.sha256(to_text(rows.load_row("grpo_l3", 0)).encode()).hexdigest()
    assert f"row grpo_l3: its config resolves to {config[:16]}" in out
    assert "guardjax experiment --out DIR --rows base,sft_l3,grpo_l3,grpo_varied" in out
    # Constant guards stand beside the others: at least 1 of 5 levels is theirs.
    assert float(line_of(out, "always safe")[2]) >= 20 and line_of(out, "always unsafe")


def test_stored_answers_stand_in_under_either_protocol(runs, said):
    status, out, _ = said("reproduce", "safeguard_vl_table6", "--runs", runs)
    assert status == 0
    # L1 has no positives: accuracy 0.5; L3: F1 of five hits and five misses, 2 * 5 / 15.
    assert line_of(out, "Qwen2.5-VL-7B: base")[2] == f"{100 * (0.5 + 2 / 3) / 2:.1f}"
    status, out, _ = said("reproduce", "safeguard_vl_table6", "--runs", runs,
                          "--compat", "invalid_is_safe")
    assert status == 0 and "published protocol, invalid_is_safe" in out
    assert line_of(out, "Qwen2.5-VL-7B: base")[2] == f"{100 * (1 + 2 / 3) / 2:.1f}"
    # Whatever is asked for, a constant guard says it: L1 is right, L3 wrong, or the reverse.
    for trap in ("bare_words", "first_answer"):
        _, out, _ = said("reproduce", "safeguard_vl_table6", "--runs", runs, "--compat", trap)
        assert line_of(out, "always safe")[2] == line_of(out, "always unsafe")[2] == "50.0"
    _, out, _ = said("reproduce", "safeguard_vl_table4", "--runs", runs, "--compat", "one_seed")
    assert "50.0 [no interval]" not in out.replace("\n", " "), "retention is no verdict"


def test_every_trap_is_shown(runs, said):
    status, out, _ = said("reproduce", "traps", "--runs", runs)
    assert status == 0 and "sft_l3 on the test policies, 40 verdicts" in out
    assert all(trap.name in out and trap.published in out for trap in TRAPS)
    assert line_of(out, "bare_words")[-1].startswith("-")
    # The mean of p1 (nothing to flag: accuracy) and p2 (all to flag: F1).
    assert "Always unsafe" in out and line_of(out, "bare_words")[-3:-1] == ["50.0", "50.0"]


@pytest.mark.parametrize("words, message", [
    ((), "give the name of a table"),
    (("table7",), "no table is called 'table7'"),
    (("safeguard_vl_table6", "--compat", "everything"), "no trap is called everything"),
    (("safeguard_vl_table6", "--compat", "paper"), "give the folder of guardjax experiment"),
    (("traps",), "give the folder of guardjax experiment"),
    (("safeguard_vl_table6", "--runs", "/nowhere"), "/nowhere has no answers on the split test"),
])
def test_what_cannot_be_shown_is_said(said, words, message):
    status, _, err = said("reproduce", *words)
    assert status == 2 and message in err


def test_a_row_without_answers_and_a_folder_without_results(runs, said, tmp_path, monkeypatch):
    _, _, err = said("reproduce", "traps", "--runs", runs, "--row", "sft_l9")
    assert "no answers of 'sft_l9'" in err
    monkeypatch.chdir(tmp_path)
    assert "run from a checkout" in said("reproduce", "safeguard_vl_table6")[2]


def test_a_picture_has_its_first_harmful_category(tmp_path, monkeypatch):
    monkeypatch.setenv("GUARDJAX_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(measure, "FULL", measure.Plan(4, 2, 2))
    found = stand_in.categories()
    world = measure.evaluation_world(tmp_path, measure.FULL)
    records = measure.test_records(world, "test", 4)
    harmless = [record for record in records if record.scene_id not in found]
    assert len(found) + len(harmless) == 8 and found
    for record in harmless:
        assert not any(record.attributes.counts.get(name) for name in ("weapons", "gore"))
    for record in records:
        if record.scene_id in found:
            assert record.attributes.counts[found[record.scene_id]] > 0
