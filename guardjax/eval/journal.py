"""The output of a batch that may be killed at any moment: nothing judged twice, nothing lost.

While a batch runs its records go, one line each, to `OUT.partial`; at its end `OUT` is replaced in
one step and the partial file goes. The next run reads both.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType

from guardjax.eval.pins import changed_pins
from guardjax.eval.verdict_record import Pins, VerdictRecord, load_records, save_records


class OutputMismatch(ValueError):
    """The output file belongs to other policies, model or intake, or is no output of ours."""


class Journal:
    """The records of one output file, under the pins of each policy. Use it with `with`.

    Raises `OutputMismatch` where the file has verdicts under other pins: one file, one set of
    policies and one model, so that a batch cannot change them half-way. Raises `OSError`, before
    anything is judged, where the folder cannot be written.
    """

    def __init__(self, out: str | Path, pins: Sequence[Pins]) -> None:
        self.out = Path(out)
        self.partial = self.out.with_name(self.out.name + ".partial")
        self._pins = tuple(pins)
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

    def judged(self) -> dict[tuple[str, Pins], VerdictRecord]:
        """(hash of a picture, pins) -> the verdict it has already."""
        return {(record.image_sha256, record.pins): record for record in self._earlier
                if record.judged and record.image_sha256}

    def append(self, record: VerdictRecord) -> None:
        """Keeps a record against a crash of this process."""
        self._file.write(record.to_json() + "\n")
        self._file.flush()

    def finish(self, records: Sequence[VerdictRecord]) -> list[VerdictRecord]:
        """Writes the output: these records, after earlier ones of pictures not among them."""
        self._file.flush()
        os.fsync(self._file.fileno())
        renewed = {_cell(record) for record in records}
        earlier = {_cell(record): record for record in self._earlier
                   if _cell(record) not in renewed}
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
        there = dict.fromkeys(record.pins for record in records)
        if any(pins not in self._pins for pins in there):
            changed = self._changed(there)
            raise OutputMismatch(
                f"{self.out} holds verdicts under another {', '.join(changed)} "
                f"({'; '.join(changed.values())}); give another output file")
        return records

    def _changed(self, there: Iterable[Pins]) -> dict[str, str]:
        """What differs (`changed_pins`) between pins of the file and those of now most like them.

        Which policies were asked together is told by their ids.
        """
        changed: dict[str, str] = {}
        for pins in there:
            like = lambda now: (now.policy_hash == pins.policy_hash,
                                now.policy_id == pins.policy_id)
            changed = changed_pins(pins, max(self._pins, key=like)) | changed
        if "policy_set" in changed:
            old, new = (", ".join(dict.fromkeys(each.policy_id for each in some))
                        for some in (there, self._pins))
            changed["policy_set"] = f"policies {old} there, {new} now"
        return changed


def _cell(record: VerdictRecord) -> tuple[str, Pins]:
    """What a file has one record of: a picture's path under a policy."""
    return record.picture, record.pins
