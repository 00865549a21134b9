"""What benchmarks print, a line a measurement: name, value, unit, bar, ok. Measures nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable


@dataclasses.dataclass(frozen=True)
class Line:
    """A measurement, and the least and the most that is good, where it is held to something.

    Name and unit are words without spaces. `value` is None where it could not be measured.
    """

    name: str
    value: float | None
    unit: str
    least: float | None = None
    most: float | None = None

    @property
    def held(self) -> bool:
        """Whether there is a bar."""
        return self.least is not None or self.most is not None

    @property
    def ok(self) -> bool:
        """Whether the bar holds; what was not measured, or is no number, does not hold it."""
        if not self.held:
            return True
        if self.value is None:
            return False
        return bool((self.least is None or self.value >= self.least)
                    and (self.most is None or self.value <= self.most))

    @property
    def bar(self) -> str:
        """>=LEAST, <=MOST or LEAST-MOST; - without one."""
        if self.most is None:
            return f">={self.least:.4g}" if self.held else "-"
        return f"<={self.most:.4g}" if self.least is None else f"{self.least:.4g}-{self.most:.4g}"

    def __str__(self) -> str:
        value = "not_measured" if self.value is None else f"{self.value:.3f}"
        verdict = ("ok" if self.ok else "FAIL") if self.held else "-"
        return f"{self.name} {value} {self.unit} {self.bar} {verdict}"


def report(lines: Iterable[Line]) -> int:
    """Prints each as it is measured; returns the exit status, 1 where one is not ok."""
    status = 0
    for line in lines:
        print(line, flush=True)
        status |= not line.ok
    return int(status)
