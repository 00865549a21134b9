"""A published table by ways of scoring that write no verdict: said, pinned, not read as words."""

import json

import pytest
from sklearn.metrics import accuracy_score, f1_score

from guardjax.eval import guard
from guardjax.eval.records import prediction_from_json
from guardjax.eval.scoring import Scoring
from guardjax.eval.traps import check_scored, chosen_traps
from tests.data import dataset_files as files

ROW = "Qwen2.5-VL-7B"
TABLE = "safeguard_vl_table6"
PROBABILITY = ("--scoring", "probability", "--min-mass", 0)
NO_WORDS = "full_from_base,invalid_is_safe,wrong_field,nine_categories,one_seed,lost_rows"


@pytest.fixture(name="reproduce")
def _reproduce(said, tiny_model, tmp_path):
    """`reproduce(*flags)` measures a small SafeEditBench; (status, output on one line, errors)."""
    files.safe_edit_bench(tmp_path / "data")

    def run(*flags):
        status, out, err = said(
            "reproduce", TABLE, "--data", f"safeeditbench={tmp_path / 'data'}",
            "--model", f"{ROW}={tiny_model}", "--out", tmp_path / "out", *flags)
        return status, " ".join(out.split()), err

    return run


def test_a_table_is_measured_by_probability_and_says_so(reproduce, tmp_path, monkeypatch):
    status, out, _ = reproduce(*PROBABILITY, "--threshold", 0.4)
    way = "probability threshold=0.4 margin=0 min_mass=0"
    assert status == 0 and f"(strict, scoring {way}); published in" in out
    assert "are of written answers; here verdicts are scored by probability" in out
    kept = json.loads((tmp_path / f"out/{TABLE}.json").read_text())
    assert kept["scoring"] == way and kept["templates"] == {ROW: "image_first"}
    file, = (tmp_path / "out/safeeditbench").glob("*.jsonl")
    pins, *rows = map(json.loads, file.read_text().splitlines())
    assert pins["pins"]["asked"] == f"float32, xla, {way}, image_first"
    rows = list(map(prediction_from_json, rows))
    assert len(rows) == 9 and all(0 < row.p_unsafe < 1 for row in rows)
    # The mean over levels by scikit-learn: accuracy at L1, which has no positives.
    scores = []
    for level in ("L1", "L2", "L3"):
        mine = [row for row in rows if row.policy_id == level]
        gold, called = ([row.label == "unsafe" for row in mine],
                        [row.p_unsafe > 0.4 for row in mine])
        scores.append(f1_score(gold, called, zero_division=0) if any(gold)
                      else accuracy_score(gold, called))
    cell, = (cell for cell in kept["cells"] if cell["model"] == ROW)
    assert cell["value"] == pytest.approx(sum(scores) / 3) and cell["n"] == 9

    def refuse(*_, **__):
        raise AssertionError("a model was asked again")
    monkeypatch.setattr(guard.Guard, "load", refuse)
    before = file.read_bytes()
    status, out, _ = reproduce(*PROBABILITY, "--threshold", 0.4, "--compat", NO_WORDS)
    assert status == 0 and f"(compat, scoring {way})" in out
    compat = json.loads((tmp_path / f"out/{TABLE}-compat.json").read_text())
    assert compat["protocol"] == NO_WORDS.split(",") and compat["scoring"] == way
    # Answers are of one way of asking, whatever it was.
    for flags, now in (((), "reasoned"), (PROBABILITY, "probability threshold=0.5"),
                       (("--scoring", "one_token"), "one_token")):
        status, _, err = reproduce(*flags)
        assert status == 2 and f"way of asking 'float32, xla, {way}, image_first' there" in err
        assert f"'float32, xla, {now}" in err
    status, _, err = reproduce(*PROBABILITY, "--threshold", 0.4, "--template", "policy_first")
    assert status == 2 and "asked with 'policy_first' it would read prompts in an order" in err
    assert file.read_bytes() == before


def test_a_table_is_measured_by_one_token(reproduce, tmp_path):
    status, out, _ = reproduce("--scoring", "one_token")
    assert status == 0 and "(strict, scoring one_token)" in out
    assert json.loads((tmp_path / f"out/{TABLE}.json").read_text())["scoring"] == "one_token"
    file, = (tmp_path / "out/safeeditbench").glob("*.jsonl")
    rows = list(map(json.loads, file.read_text().splitlines()[1:]))
    # An untrained model's likeliest word is neither: it needs review, and counts as wrong.
    assert {row["outcome"] for row in rows} == {"needs_review"}
    assert {row["problem"] for row in rows} == {"unknown_word"}


@pytest.mark.parametrize(("flags", "words"), [
    (("--scoring", "one_token", "--compat", "paper"), "bare_words"),
    (("--scoring", "probability", "--compat", "first_answer,reward_for_accuracy"),
     "reward_for_accuracy"),
])
def test_what_reads_written_verdicts_is_refused_where_none_is_written(
        reproduce, tmp_path, flags, words):
    status, _, err = reproduce(*flags)
    assert status == 2 and words in err
    assert f"reads what a model wrote, and with --scoring {flags[1]} it writes no verdict" in err
    assert "ask with --scoring reasoned" in err
    assert (f"or take --compat {NO_WORDS}" in err) == (flags[-1] == "paper")
    assert not (tmp_path / "out").exists()


def test_traps_that_read_words_are_known():
    read = {"bare_words", "first_answer", "reward_for_accuracy"}
    for name in ("full_from_base", "invalid_is_safe", "wrong_field", "nine_categories",
                 "mixed_metric", "one_seed", "lost_rows"):
        check_scored(chosen_traps([name]), Scoring("one_token"))
    for name in read:
        check_scored(chosen_traps([name]), Scoring())
        with pytest.raises(ValueError, match=f"--compat {name} reads what a model wrote"):
            check_scored(chosen_traps([name]), Scoring("probability"))


@pytest.mark.parametrize("flags", [
    (TABLE, "--scoring", "one_token"), (TABLE, "--template", "policy_first"),
    ("traps", "--scoring", "probability")])
def test_stored_answers_are_asked_no_other_way(said, tmp_path, flags):
    status, _, err = said("reproduce", *flags, "--runs", tmp_path)
    assert status == 2 and "here stored answers are counted: give --data and --model" in err


def test_a_rule_that_no_scoring_reads_is_refused(reproduce, tmp_path):
    status, _, err = reproduce("--threshold", 0.4)
    assert status == 2 and "threshold=0.4 is for scoring 'probability'" in err
    assert not (tmp_path / "out").exists()
