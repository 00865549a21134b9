"""Stored answers: torn ends, other models, other rows."""

import dataclasses
import json

import pytest

from guardjax.eval.answer_file import AnswerFile, AnswersMismatch, Pins, check_only, file_name
from guardjax.eval.records import Prediction

PINS = Pins("guard", "aaaa", "own", "test", "1234", "float32")
IDS = [f"own/test/{i}" for i in range(5)]
CELLS = [("test", name) for name in IDS]


def answer(place, model="aaaa"):
    return Prediction(model=model, variant="guard", seed=0, split="test", example_id=IDS[place],
                      kind="judge", image_id=f"p{place}", policy_id="house", label="safe",
                      outcome="safe", output="<answer>safe</answer>", cited_rules=("R1",))


@pytest.fixture(name="path")
def _path(tmp_path):
    return tmp_path / "answers" / file_name("guard")


def test_answers_are_there_after_every_append(path):
    stored = AnswerFile(path, PINS, CELLS)
    assert stored.missing == [0, 1, 2, 3, 4]
    stored.append([answer(3), answer(0)])
    again = AnswerFile(path, PINS, CELLS)
    assert again.missing == [1, 2, 4]
    again.append([answer(place) for place in again.missing])
    assert AnswerFile(path, PINS, CELLS).in_order() == [answer(place) for place in range(5)]


@pytest.mark.parametrize("cut", [1, 40, 150])
def test_a_torn_line_is_asked_again(path, cut):
    AnswerFile(path, PINS, CELLS).append([answer(0), answer(1)])
    whole = path.read_text()
    path.write_text(whole[:-cut])
    stored = AnswerFile(path, PINS, CELLS)
    assert stored.missing == [1, 2, 3, 4]
    stored.append([answer(1)])
    assert path.read_text() == whole


def test_a_torn_first_line_is_an_empty_file(path):
    path.parent.mkdir()
    path.write_text('{"pins": {"var')
    assert AnswerFile(path, PINS, CELLS).missing == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("field, words", [
    ("model", "model (hash of its weights) 'aaaa' there, 'other' now"),
    ("rows", "rows (hash of ids, labels, policies and pictures) '1234' there, 'other' now"),
    ("asked", "way of asking 'float32' there, 'other' now"),
    ("split", "split 'test' there, 'other' now"),
])
def test_answers_under_other_pins_are_refused_and_kept(path, field, words):
    AnswerFile(path, PINS, CELLS).append([answer(0)])
    before = path.read_bytes()
    with pytest.raises(AnswersMismatch) as caught:
        AnswerFile(path, dataclasses.replace(PINS, **{field: "other"}), CELLS)
    assert words in str(caught.value) and "another folder with --out" in str(caught.value)
    assert path.read_bytes() == before


@pytest.mark.parametrize("line, words", [
    (json.dumps(dataclasses.asdict(answer(0))), "'own/test/0' of split 'test' is answered twice"),
    (json.dumps(dataclasses.asdict(answer(1)) | {"example_id": "own/test/9"}),
     "'own/test/9' of split 'test' is none of the rows"),
    (json.dumps(dataclasses.asdict(answer(1)) | {"split": "dev"}),
     "'own/test/1' of split 'dev' is none of the rows"),
    (json.dumps(dataclasses.asdict(answer(1, "bbbb"))),
     "an answer of model 'bbbb' among those of 'aaaa'"),
    (json.dumps(dataclasses.asdict(answer(1)) | {"label": "maybe"}), "label 'maybe' is not one of"),
    ("[]", "not a prediction"),
])
def test_a_foreign_line_is_named(path, line, words):
    AnswerFile(path, PINS, CELLS).append([answer(0)])
    with open(path, "a") as file:
        file.write(line + "\n")
    with pytest.raises(AnswersMismatch) as caught:
        AnswerFile(path, PINS, CELLS)
    assert words in str(caught.value) and "line 3" in str(caught.value)


def test_something_else_in_its_place_is_refused(path):
    path.parent.mkdir()
    path.write_text("hello\n")
    with pytest.raises(AnswersMismatch, match="line 1: not stored answers"):
        AnswerFile(path, PINS, CELLS)


def test_a_folder_of_another_evaluation_is_refused(path):
    AnswerFile(path, PINS, CELLS)
    check_only(path.parent, {"guard": "aaaa", "base": "cccc"})
    with pytest.raises(AnswersMismatch, match=r"answers of model 'guard' \(hash aaaa\), which is "
                                              r"not measured now; measured is 'base' \(hash cccc"):
        check_only(path.parent, {"base": "cccc"})


def test_one_question_may_count_towards_two_splits(path):
    cells = [("test", "a"), ("test_in_words", "a")]
    rows = [dataclasses.replace(answer(0), split=split, example_id=name) for split, name in cells]
    stored = AnswerFile(path, PINS, cells)
    stored.append(rows[1:])
    again = AnswerFile(path, PINS, cells)
    assert again.missing == [0] and len(again) == 2
    again.append(rows[:1])
    assert again.in_order() == AnswerFile(path, PINS, cells).in_order() == rows


def test_names_that_are_paths_have_files_of_their_own():
    names = [file_name(name) for name in ("runs/a/model", "runs-a-model", "../..", "a" * 300)]
    assert len(set(names)) == 4 and not any("/" in name or name.startswith(".") for name in names)
