"""The output of a batch that may be killed at any moment: nothing judged twice, nothing lost.

While a batch runs its records go, one line each, to `OUT.partial`; at its end `OUT` is replaced in
one step and the partial file goes. The next run reads both.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from guardjax.eval.pins import changed_pins
from guardjax.eval.verdict_record import Pins, VerdictRecord, load_records, save_records


class OutputMismatch(ValueError):
    """The output file belongs to another policy, model or intake, or is no output of ours."""


class Journal:
    """The records of one output file, under one set of pins. Use it with `with`.

    Raises `OutputMismatch` where the file has verdicts under other pins: one file, one policy
    and one model, so that a batch cannot change its policy half-way. Raises `OSError`, before
    anything is judged, where the folder cannot be written.
    """

    def __init__(self, out: str | Path, pins: Pins) -> None:
        self.out = Path(out)
        self.partial = self.out.with_name(self.out.name + ".partial")
        self._pins = pins
        self._earlier = self._load()
        self.partial.parent.mkdir(parents=True, exist_ok=True)
        # Rewritten, not appended to, so that a torn last line does not swallow the next one.
        save_records(self.partial, self._earlier)
        self._file = self.partial.open("a", encoding="utf-8", newline="\n")

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self._file.close()

    def judged(self) -> dict[str, VerdictRecord]:
        """Hash of a picture -> the verdict it has already."""
        return {record.image_sha256: record for record in self._earlier
                if record.judged and record.image_sha256}

    def append(self, record: VerdictRecord) -> None:
        """Keeps a record against a crash of this process."""
        self._file.write(record.to_json() + "\n")
        self._file.flush()

    def finish(self, records: Sequence[VerdictRecord]) -> list[VerdictRecord]:
        """Writes the output: these records, after earlier ones of pictures not among them."""
        self._file.flush()
        os.fsync(self._file.fileno())
        renewed = {record.picture for record in records}
        earlier = {record.picture: record for record in self._earlier
                   if record.picture not in renewed}
        everything = [*earlier.values(), *records]
        save_records(self.out, everything)
        self.partial.unlink(missing_ok=True)
        return everything

    def _load(self) -> list[VerdictRecord]:
        records: list[VerdictRecord] = []
        for path, torn_end in ((self.out, False), (self.partial, True)):
            if not path.exists():
                continue
            try:
                records += load_records(path, torn_end=torn_end)
            except ValueError as error:
                raise OutputMismatch(f"{error}; give another output file") from error
        for record in records:
            if changed := changed_pins(record.pins, self._pins):
                raise OutputMismatch(
                    f"{self.out} holds verdicts under another {', '.join(changed)} "
                    f"({'; '.join(changed.values())}); give another output file")
        return records
