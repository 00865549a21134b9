"""The line that `guardjax judge` writes of a picture under a policy: what was decided, by what."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path

from guardjax.atomic import write_text
from guardjax.eval.records import OUTCOMES
from guardjax.eval.scoring import REASONED


@dataclasses.dataclass(frozen=True)
class Pins:
    """Everything besides the picture that a verdict depends on; equal pins, equal verdict."""

    policy_id: str
    policy_version: str
    policy_hash: str            # of the policy as data
    policy_text_hash: str       # of the words that the model read
    model_hash: str
    intake_version: str
    scoring: str = REASONED     # how the answer was asked for and read, see `scoring.py`
    policy_set: str = ""        # of all policies asked together (`policy_set.py`), "" for one


@dataclasses.dataclass(frozen=True)
class VerdictRecord:
    """One picture under one policy.

    `status` is "ok", "invalid:REASON" where the model gave no usable verdict, or "error:CODE"
    where the picture never got one: a code of `guardjax.data.intake`, `E_PROMPT` where picture and
    policy do not fit the model's context, `E_MODEL` where the model failed. Only a record
    that is "ok" can say safe or unsafe; this is checked here, so that no path around it exists.
    """

    picture: str                            # path as given
    decision: str                           # safe, unsafe or needs_review
    status: str
    pins: Pins
    rule_ids: tuple[str, ...] = ()
    rationale: str | None = None
    problem: str | None = None              # for people: why it needs review
    image_sha256: str | None = None         # of the file's bytes
    image_format: str | None = None
    image_size: tuple[int, int] | None = None   # width, height
    frames_scored: int = 0
    frame_count: int = 0
    notes: tuple[str, ...] = ()             # what intake did to the picture
    outputs: tuple[str, ...] = ()           # the model's own words, one for each view scored
    p_unsafe: tuple[float, ...] = ()        # of each view, where it was scored by one token

    def __post_init__(self) -> None:
        if self.decision not in OUTCOMES:
            raise ValueError(f"decision {self.decision!r} is not one of {', '.join(OUTCOMES)}")
        if (self.decision == "needs_review") == (self.status == "ok"):
            raise ValueError(f"a record with status {self.status!r} cannot say {self.decision!r}")
        if self.decision == "safe" and not self.outputs:
            raise ValueError("nothing is safe that no model looked at")

    @property
    def judged(self) -> bool:
        """Whether a model answered; an error is tried again on the next run, an answer is not."""
        return not self.status.startswith("error:")

    def to_json(self) -> str:
        """One line; the pins are spread out, so that each is a column. No `policy_set` for one."""
        row = dataclasses.asdict(self)
        if not self.pins.policy_set:
            del row["pins"]["policy_set"]
        # ASCII, because a file name may hold bytes that are no text at all.
        return json.dumps({**{k: v for k, v in row.items() if k != "pins"}, **row["pins"]})

    @classmethod
    def from_json(cls, line: str) -> VerdictRecord:
        """Inverse of `to_json`. Raises `ValueError` for anything else."""
        try:
            row = {key: tuple(value) if isinstance(value, list) else value
                   for key, value in json.loads(line).items()}
            pins = Pins(**{field.name: row.pop(field.name) for field in dataclasses.fields(Pins)
                           if field.name in row})
            if not all(isinstance(value, str) for value in dataclasses.astuple(pins)):
                raise TypeError("policy, model, intake and scoring are told by texts")
            return cls(pins=pins, **row)
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"not a verdict record: {error!r}") from error


def save_records(path: str | Path, records: Iterable[VerdictRecord]) -> None:
    """Writes one record a line, the whole file in one step."""
    write_text(path, "".join(f"{record.to_json()}\n" for record in records))


def load_records(path: str | Path, *, torn_end: bool = False) -> list[VerdictRecord]:
    """Reads records. `ValueError` names the line that is none.

    `torn_end` allows for a last line that was cut while it was written, and leaves it out.
    """
    lines = Path(path).read_text(encoding="utf-8", errors="replace").split("\n")
    records = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            records.append(VerdictRecord.from_json(line))
        except ValueError as error:
            if torn_end and number == len(lines):
                break
            raise ValueError(f"{path}, line {number}: {error}") from error
    return records
