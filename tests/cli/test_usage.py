"""What the verbs share: numbers they take, and how they refuse."""

import argparse

import pytest

from guardjax.cli.usage import fail, plain, positive


def test_only_whole_numbers_of_at_least_one() -> None:
    assert positive("12") == 12
    for text in ("0", "-3", "1.5", "many", ""):
        with pytest.raises(argparse.ArgumentTypeError, match=f"'{text}' is not a whole number"):
            positive(text)


def test_a_message_cannot_steer_the_terminal(capsys) -> None:
    assert plain("a\x1b[2Jb\rc") == "a\\x1b[2Jb\\rc"
    assert fail("judge", "no picture \x1b[31m here\n-old\n+new") == 2
    assert capsys.readouterr().err == "guardjax judge: no picture \\x1b[31m here\n-old\n+new\n"
    assert fail("train", ValueError("x"), status=1) == 1


@pytest.mark.parametrize("words", [
    ("data", "show", "DIR", "--pairs", "0"), ("data", "show", "DIR", "--columns", "x"),
    ("judge", "a.png", "--policy", "p", "--out", "o", "--batch-size", "-1")])
def test_options_use_it(guardjax, words, capsys) -> None:
    with pytest.raises(SystemExit) as stopped:
        guardjax(*words)
    assert stopped.value.code == 2
    assert f"'{words[-1]}' is not a whole number of at least 1" in capsys.readouterr().err
