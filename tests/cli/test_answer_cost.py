"""Tokens and milliseconds of answers: what is counted and what is left out."""

import json
import math
import time

import pytest

from guardjax.cli.answer_cost import answer_cost, timed
from guardjax.data.batching import load_batcher
from guardjax.data.datasets.record import example_id, to_example
from guardjax.data.datasets.registry import open_dataset
from guardjax.eval.guard import Guard
from guardjax.eval.records import Prediction, load_predictions
from guardjax.eval.scoring import Scoring
from guardjax.train.jsonl import read_jsonl
from tests.data import dataset_files as files


def prediction(number, tokens):
    return Prediction("m", "m", 0, "test", f"e{number}", "judge", f"p{number // 2}", label="safe",
                      outcome="safe", prompt_tokens=tokens, answer_tokens=3)


def test_time_is_of_passes_that_compiled_nothing(tmp_path):
    programs, waits = [0], (0.2, 0.02, 0.02)

    def batches():
        for number, seconds in enumerate(waits):
            programs[0] += number == 0
            time.sleep(seconds)
            yield [prediction(2 * number + k, 10 + number) for k in range(2)]

    file = tmp_path / "time/m.jsonl"
    rows = [row for batch in timed(batches(), file, lambda: programs[0]) for row in batch]
    laps = read_jsonl(file)
    assert [lap["prompts"] for lap in laps] == [2, 2, 2]
    assert [lap["compiled"] for lap in laps] == [True, False, False]
    found = answer_cost(rows, file)
    steady = sum(lap["seconds"] for lap in laps[1:])
    assert found.ms_a_prompt == pytest.approx(1000 * steady / 4)
    assert found.ms_a_picture == pytest.approx(2 * found.ms_a_prompt)
    assert 0.2 <= found.compiling_seconds == laps[0]["seconds"]
    assert (found.prompts, found.pictures) == (6, 3)
    assert (found.prompt_tokens, found.answer_tokens) == (11, 3)


def test_what_is_not_known_is_not_guessed(tmp_path):
    found = answer_cost([prediction(0, 7), prediction(1, None)], tmp_path / "none.jsonl")
    assert math.isnan(found.prompt_tokens) and math.isnan(found.ms_a_picture)
    assert math.isnan(found.compiling_seconds) and found.answer_tokens == 3


def test_an_eval_says_what_it_cost(said, tiny_model, tmp_path):
    files.safe_edit_bench(tmp_path / "data")
    status, out, _ = said("eval", "--dataset", "safeeditbench", "--dir", tmp_path / "data",
                          "--model", tiny_model, "--out", tmp_path / "out")
    assert status == 0 and "What answers cost" in out
    reader, batcher = open_dataset("safeeditbench", tmp_path / "data"), load_batcher(tiny_model)
    rows = load_predictions(tmp_path / "out/predictions.jsonl")
    # Counted in branches; here prompt by prompt.
    expected = {example_id(record): len(batcher.encode([to_example(record)])[0].ids)
                for record in reader}
    assert {row.example_id: row.prompt_tokens for row in rows} == expected
    assert all(0 < row.answer_tokens <= batcher.answer_limit for row in rows)
    kept = json.loads((tmp_path / "out/answer_cost.json").read_text())["models"][str(tiny_model)]
    assert kept["prompts"] == 9 and kept["pictures"] == 3
    assert kept["prompt_tokens"] == pytest.approx(sum(expected.values()) / 9)
    page = (tmp_path / "out/report.html").read_text()
    assert "What answers cost" in page and "ms a picture" in page
    (file,) = (tmp_path / "out/time").iterdir()
    assert sum(lap["prompts"] for lap in read_jsonl(file)) == 9


def test_scored_verdicts_sample_nothing(tiny_model, tmp_path):
    files.safe_edit_bench(tmp_path / "data")
    reader = open_dataset("safeeditbench", tmp_path / "data")
    examples = [to_example(record) for record in reader]
    written, scored = (Guard.load(tiny_model, scoring=Scoring(mode)).answer_examples(examples)
                       for mode in ("reasoned", "probability"))
    assert {reply.answer_tokens for reply in scored} == {0}
    # What the answer is made to begin with is read, not written.
    begun = {there.prompt_tokens - here.prompt_tokens
             for here, there in zip(written, scored, strict=True)}
    assert len(begun) == 1 and begun.pop() > 0
