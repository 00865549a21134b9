"""The table of `experiments/parity` says what is missed."""

import dataclasses
import math

import pytest

from experiments.parity.tables import Result, problems, render
from tests.models.reference_cases import TIED

GOOD = Result(shape="small", cfg=TIED, num_parameters=7, logits={"text": 1e-6, "video": 2e-6},
              ids_equal=True, greedy_equal=True, greedy_tokens=9, gradient=1e-6, worst_leaf="a.b",
              bf16=[(1e-2, 2e-2, 3e-2, 4e-2), (3e-2, 2.5e-2, 3e-2, 4e-2)])


@pytest.mark.parametrize(("changes", "message"), [
    ({"logits": {"text": 1e-6, "video": 2e-5}}, "small: logits of video are 2.0e-05 apart"),
    ({"logits": {"text": math.nan}}, "small: logits of text are nan apart"),
    ({"gradient": 2e-4}, "small: gradient of a.b is 2.0e-04 apart"),
    ({"bf16": [(3e-2, 2e-2, 0, 0)]}, "small: bf16 is 1.50 times as far off as theirs"),
    ({"ids_equal": False}, "small: positions differ"),
    ({"greedy_equal": False}, "small: greedy answers differ")])
def test_a_missed_bar_is_named(changes, message):
    assert problems([GOOD]) == []
    assert problems([GOOD, dataclasses.replace(GOOD, **changes)]) == [message]


def test_what_a_family_does_not_know_is_left_open():
    text = render([GOOD, dataclasses.replace(GOOD, shape="other", logits={"text": 1e-6})], "now")
    assert "| small | 1.0e-06 | 2.0e-06 |" in text and "| other | 1.0e-06 | – |" in text


def test_tables_have_a_line_for_every_shape():
    text = render([GOOD, dataclasses.replace(GOOD, shape="other", ids_equal=False)], "2030; x 1")
    assert text.startswith("2030; x 1\n") and text.count("| small |") == 4
    assert "| other | 1.0e-06 | `a.b` | NO | yes | 9 |" in text
    assert "| small | 2.24e-02 | 2.26e-02 | 0.99 | 3.0e-02 | 4.0e-02 |" in text
