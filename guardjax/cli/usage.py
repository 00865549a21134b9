"""What the verbs share in talking with a person: the numbers they take, and how they refuse."""

from __future__ import annotations

import argparse
import sys


def positive(text: str) -> int:
    """An option's value as a whole number of at least 1; for `type=` of `add_argument`.

    Raises:
      ArgumentTypeError: anything else.
    """
    number = int(text) if text.isdecimal() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return number


def plain(text: str) -> str:
    """Text from outside (a file's name, a model's words) with nothing a terminal would obey."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii")
                   for c in text)


def fail(verb: str, problem: object, status: int = 2) -> int:
    """Says on stderr why the verb stops, and returns the exit status; 2 is for bad input."""
    lines = [plain(line) for line in str(problem).split("\n")]
    print(f"guardjax {verb}: " + "\n".join(lines), file=sys.stderr)
    return status
