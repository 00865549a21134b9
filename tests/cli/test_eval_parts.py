"""One data set evaluated by several processes: the numbers are those of one."""

import dataclasses

import pytest

from guardjax.eval.records import load_predictions
from guardjax.eval.tables import load_results
from tests.data import dataset_files as files


@pytest.fixture(name="evaluate")
def _evaluate(said, tiny_model, tmp_path):
    files.safe_edit_bench(tmp_path / "data")

    def run(out, *words):
        status, told, err = said(
            "eval", "--dataset", "safeeditbench", "--dir", tmp_path / "data", "--model",
            tiny_model, "--out", tmp_path / out, *words)
        assert status == 0, err
        return told

    return run


def test_parts_give_the_numbers_of_the_whole(evaluate, tmp_path):
    evaluate("one")
    whole = load_predictions(tmp_path / "one/predictions.jsonl")
    for part in ("2/2", "1/2"):
        told = evaluate("many", "--part", part)
        number = len(whole) // 2 if part == "1/2" else len(whole) - len(whole) // 2
        assert f"part {part[0]} of 2: {number} answers are in" in told
        assert not (tmp_path / "many/results.json").exists()
    told = evaluate("many")
    assert f"{len(whole)} answers are stored, none is asked for" in told
    assert load_predictions(tmp_path / "many/predictions.jsonl") == whole
    plain = lambda folder: [dataclasses.asdict(row)
                            for row in load_results(tmp_path / folder / "results.json")]
    assert plain("many") == plain("one")
    assert len((tmp_path / "many/looks.jsonl").read_text().splitlines()) == 2


@pytest.mark.parametrize("words, message", [
    (("--part", "1/2"), "--part splits the rows of a data set"),
    (("--dataset", "own", "--dir", ".", "--part", "3/2"), "part '3/2': give I/N"),
])
def test_what_is_no_part_is_said(said, tmp_path, words, message):
    status, _, err = said("eval", *words, "--out", tmp_path / "out")
    assert status == 2 and message in err and not (tmp_path / "out").exists()
