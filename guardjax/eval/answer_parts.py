"""One evaluation asked by many: each host asks its part of the rows, and keeps it in its own file.

Answers are joined, never numbers: whoever opens the whole finds all parts beside it, and computes
each sum and count once, over all rows.
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path


class PartError(ValueError):
    """Words that are no part."""


@dataclasses.dataclass(frozen=True)
class Part:
    """Part `number` of `of`, from 1; the default is all."""

    number: int = 1
    of: int = 1

    def places(self, total: int) -> range:
        """Of `total` rows in order those of this part: neighbours, as many as any other's or one
        more or less."""
        return range(total * (self.number - 1) // self.of, total * self.number // self.of)

    def file(self, path: Path) -> Path:
        """Where its answers are, for the file `path` of all."""
        if self.of == 1:
            return path
        return path.with_name(f"{path.stem}.{self.number}of{self.of}{path.suffix}")

    def __str__(self) -> str:
        return f"part {self.number} of {self.of}"


def parse_part(text: str) -> Part:
    """The part of "2/4".

    Raises:
      PartError: it is none.
    """
    match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
    part = Part(*map(int, match.groups())) if match else None
    if part is None or not 1 <= part.number <= part.of:
        raise PartError(f"part {text!r}: give I/N with I from 1 to N, such as 2/4 on the second of "
                        "four hosts")
    return part


def parts_of(path: Path) -> list[Path]:
    """The files beside `path` that have parts of it."""
    name = re.compile(re.escape(path.stem) + r"\.\d+of\d+" + re.escape(path.suffix))
    return sorted(file for file in path.parent.glob(f"*{path.suffix}") if name.fullmatch(file.name))
