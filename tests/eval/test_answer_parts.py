"""Parts of the rows, asked by many: together they are the whole, and nothing is counted twice."""

import dataclasses

import pytest

from guardjax.eval.answer_file import AnswerFile, AnswersMismatch, check_only
from guardjax.eval.answer_parts import Part, PartError, parse_part, parts_of
from tests.eval.test_answer_file import CELLS, PINS, answer


@pytest.mark.parametrize("total", [0, 1, 3, 5, 100])
@pytest.mark.parametrize("of", [1, 2, 3, 7])
def test_every_place_is_in_one_part_and_parts_are_alike(total, of):
    parts = [Part(number, of).places(total) for number in range(1, of + 1)]
    assert [place for part in parts for place in part] == list(range(total))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("text", ["", "2", "0/4", "5/4", "1/0", "-1/4", "a/b", "1/4/2", "1.5/4"])
def test_words_that_are_no_part_are_refused(text):
    with pytest.raises(PartError, match="give I/N with I from 1 to N, such as 2/4"):
        parse_part(text)
    assert parse_part("2/4") == Part(2, 4)


@pytest.fixture(name="path")
def _path(tmp_path):
    return tmp_path / "guard-123456.jsonl"


def ask(path, part, **pins):
    stored = AnswerFile(path, dataclasses.replace(PINS, **pins), CELLS, part)
    stored.append([answer(place) for place in stored.missing])
    return stored


def test_parts_are_asked_apart_and_read_together(path):
    first, second = ask(path, Part(1, 2)), ask(path, Part(2, 2))
    assert [len(first), len(second)] == [2, 3]
    assert [row.example_id for row in first.in_order()] == [name for _, name in CELLS[:2]]
    assert parts_of(path) == [first.path, second.path] and not path.exists()
    whole = AnswerFile(path, PINS, CELLS)
    assert whole.missing == [] and len(whole) == 5
    assert whole.in_order() == [answer(place) for place in range(5)]


def test_what_no_part_has_is_asked_and_kept_by_the_whole(path):
    ask(path, Part(2, 3))
    torn = AnswerFile(path, PINS, CELLS, Part(3, 3))
    torn.append([answer(3), answer(4)])
    torn.path.write_text(torn.path.read_text()[:-5])    # its host is still writing
    left = torn.path.read_bytes()
    whole = AnswerFile(path, PINS, CELLS)
    assert whole.missing == [0, 4]
    whole.append([answer(0), answer(4)])
    assert AnswerFile(path, PINS, CELLS).in_order() == [answer(place) for place in range(5)]
    assert torn.path.read_bytes() == left


def test_parts_of_other_splittings_count_each_row_once(path):
    ask(path, Part(1, 2))
    ask(path, Part(1, 1))
    ask(path, Part(2, 3))
    assert AnswerFile(path, PINS, CELLS).in_order() == [answer(place) for place in range(5)]


def test_a_part_of_another_run_is_refused(path):
    ask(path, Part(1, 2), asked="bfloat16")
    with pytest.raises(AnswersMismatch, match=r"1of2.jsonl holds answers of another run: .*asking"):
        AnswerFile(path, PINS, CELLS)


def test_parts_belong_to_the_models_that_are_measured(tmp_path):
    from guardjax.eval.answer_file import file_name

    ask(tmp_path / file_name("guard"), Part(1, 2))
    check_only(tmp_path, {"guard": "aaaa"})
    with pytest.raises(AnswersMismatch, match="1of2.jsonl holds answers of model 'guard'"):
        check_only(tmp_path, {"base": "bbbb"})
