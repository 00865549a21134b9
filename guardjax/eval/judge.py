"""A person's own pictures under a person's own policy, fail-closed.

A picture is called safe only where a model looked at every view of it and each answer parsed as
safe. Whatever else happens, to one picture or to all, ends as `needs_review` with a reason, and
one bad picture never stops the others.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from guardjax.data.intake import (
    INTAKE_VERSION,
    IntakeError,
    Limits,
    Picture,
    load_picture,
    read_file,
)
from guardjax.data.prompts import PromptError
from guardjax.eval.combine import combine
from guardjax.eval.journal import Journal
from guardjax.eval.picture_paths import Found, find_pictures
from guardjax.eval.scoring import Reply, Scoring
from guardjax.eval.verdict_record import Pins, VerdictRecord
from guardjax.policies import Policy, Verdict, Wording, parse_verdict, text_hash

# Pictures [H, W, 3] uint8 and a policy's text -> for each picture (text, cut off by the limit?),
# and where the model did not write a verdict the one that its score means (`scoring.Reply`).
Answer = Callable[[list[np.ndarray], str], Sequence[tuple[str, bool] | Reply]]

_MAX_HELD_PIXELS = 64_000_000    # decoded pictures that wait for a full batch


@dataclasses.dataclass
class _Job:
    """A picture that waits for its verdict, and where its records go."""

    picture: Picture
    places: list[int]

    @property
    def views(self) -> list[np.ndarray]:
        return [view for frame in self.picture.frames for view in frame.views]


def judge_pictures(
    pictures: Sequence[str | Path], policy: Policy, answer: Answer, *, model_hash: str,
    out: str | Path | None = None, wording: Wording | int = 0, batch_size: int = 16,
    limits: Limits = Limits(), scoring: Scoring = Scoring(),
    on_record: Callable[[VerdictRecord], None] | None = None,
) -> list[VerdictRecord]:
    """Judges files and folders of pictures; one record a picture, in order of the pictures.

    Args:
      pictures: files and folders (`find_pictures`).
      policy: the policy; it is rendered once, so the whole batch sees the same words.
      answer: the model; it is called with at most `batch_size` pictures at a time.
      model_hash: what identifies the model's weights.
      out: where records go (`Journal`): a batch that was killed goes on where it stopped, and a
        file that was judged under the same policy by the same model is not judged again.
      wording: how the policy is put into words.
      limits: of intake.
      scoring: how `answer` scores; part of what a verdict depends on.
      on_record: called with every record as soon as it is known.

    Raises:
      OutputMismatch: `out` belongs to another policy or model.
      OSError: `out` cannot be written.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; it must be at least 1")
    text = policy.render(wording)
    pins = Pins(policy_id=policy.id, policy_version=policy.version, policy_hash=policy.hash,
                policy_text_hash=text_hash(text), model_hash=model_hash,
                intake_version=INTAKE_VERSION, scoring=str(scoring))
    partial = () if out is None else (Path(out), Path(f"{out}.partial"))
    found = find_pictures(pictures, leave_out=partial)
    with Journal(out, pins) if out is not None else contextlib.nullcontext() as journal:
        batch = _Batch(found, policy, text, pins, answer, batch_size, limits,
                       journal.judged() if journal else {})
        for record in batch.run():
            if journal:
                journal.append(record)
            if on_record:
                on_record(record)
        records = batch.in_order()
        if journal:
            journal.finish(records)
    return records


@dataclasses.dataclass
class _Batch:
    found: list[Found]
    policy: Policy
    text: str
    pins: Pins
    answer: Answer
    batch_size: int
    limits: Limits
    known: dict[str, VerdictRecord]         # hash of a file -> its verdict

    def __post_init__(self) -> None:
        self._records: dict[int, VerdictRecord] = {}
        self._waiting: dict[str, _Job] = {}

    def in_order(self) -> list[VerdictRecord]:
        return [self._records[place] for place in range(len(self.found))]

    def run(self) -> Iterator[VerdictRecord]:
        for place, item in enumerate(self.found):
            record = self._take_in(place, item)
            if record:
                yield self._keep(place, record)
            jobs = self._waiting.values()
            if (sum(len(job.views) for job in jobs) >= self.batch_size
                    or sum(view.size for job in jobs for view in job.views)
                    >= 3 * _MAX_HELD_PIXELS):
                yield from self._flush()
        yield from self._flush()

    def _keep(self, place: int, record: VerdictRecord) -> VerdictRecord:
        self._records[place] = record
        if record.judged and record.image_sha256:
            self.known[record.image_sha256] = record
        return record

    def _take_in(self, place: int, item: Found) -> VerdictRecord | None:
        """The record, if the model need not be asked; else the picture joins those waiting."""
        name, digest = str(item.path), None
        try:
            if item.problem:
                raise IntakeError("E_READ", item.problem)
            data = read_file(item.path, self.limits)
            digest = hashlib.sha256(data).hexdigest()
            if digest in self.known:
                return dataclasses.replace(self.known[digest], picture=name)
            if digest not in self._waiting:
                self._waiting[digest] = _Job(load_picture(data, self.limits), [])
            self._waiting[digest].places.append(place)
            return None
        except IntakeError as error:
            return self._error(name, error.code, error.message, image_sha256=digest)

    def _flush(self) -> Iterator[VerdictRecord]:
        jobs = list(self._waiting.values())
        self._waiting.clear()
        for job, answers in zip(jobs, self._ask(jobs), strict=True):
            for place in job.places:
                name = str(self.found[place].path)
                yield self._keep(place, self._record(name, job.picture, answers))

    def _ask(self, jobs: list[_Job]) -> list[list[Reply] | Exception]:
        """For each job its answers, or why it has none."""
        try:
            answers = iter(self._answers([view for job in jobs for view in job.views]))
            return [[next(answers) for _ in job.views] for job in jobs]
        except Exception as error:      # whatever a model does, the batch goes on
            if len(jobs) == 1:
                return [error]
            # One picture may have spoilt it for all: ask again, one by one.
            return [result for job in jobs for result in self._ask([job])]

    def _answers(self, views: list[np.ndarray]) -> list[Reply]:
        answers = []
        for start in range(0, len(views), self.batch_size):
            part = views[start:start + self.batch_size]
            reply = list(self.answer(part, self.text))
            if len(reply) != len(part):
                raise ValueError(f"the model gave {len(reply)} answers for {len(part)} pictures")
            for item in reply:
                text, truncated, *rest = item
                if not isinstance(text, str) or not isinstance(truncated, (bool, np.bool_)):
                    raise TypeError("the model's answer is not (text, truncated)")
                answers.append(Reply(text, bool(truncated), *rest))
        return answers

    def _verdict(self, reply: Reply) -> Verdict:
        if reply.verdict is not None:
            return reply.verdict
        return parse_verdict(reply.text, self.policy.rule_ids, truncated=reply.truncated)

    def _record(
        self, name: str, picture: Picture, answers: list[Reply] | Exception
    ) -> VerdictRecord:
        about = {
            "image_sha256": picture.sha256, "image_format": picture.format,
            "image_size": picture.size, "frame_count": picture.frame_count,
            "notes": picture.notes}
        if isinstance(answers, Exception):
            if isinstance(answers, PromptError):
                return self._error(name, "E_PROMPT", str(answers), **about)
            return self._error(name, "E_MODEL", f"{type(answers).__name__}: {answers}", **about)
        parsed = map(self._verdict, answers)
        result = combine([[next(parsed) for _ in frame.views] for frame in picture.frames])
        return VerdictRecord(
            picture=name, decision=str(result.outcome), pins=self.pins,
            status="ok" if result.problem is None else f"invalid:{result.problem}",
            rule_ids=result.rule_ids, rationale=result.rationale, problem=result.problem,
            frames_scored=len(picture.frames), outputs=tuple(reply.text for reply in answers),
            p_unsafe=tuple(reply.score.p_unsafe for reply in answers if reply.score), **about)

    def _error(self, name: str, code: str, message: str, **about) -> VerdictRecord:
        return VerdictRecord(picture=name, decision="needs_review", status=f"error:{code}",
                             problem=message, pins=self.pins, **about)
