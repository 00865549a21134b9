"""A person's own pictures under a person's own policy, or under several, fail-closed.

A picture is called safe only where a model looked at every view of it and each answer parsed as
safe. Whatever else happens, to one picture or to all, ends as `needs_review` with a reason, and
one bad picture, or one policy that does not fit, never stops the others.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from guardjax.data.intake import (
    INTAKE_VERSION,
    IntakeError,
    Limits,
    load_picture,
    read_file,
)
from guardjax.data.prompts import PromptError
from guardjax.eval.asking import Answer, Asker, Job, Question
from guardjax.eval.combine import combine
from guardjax.eval.journal import Journal
from guardjax.eval.picture_paths import Found, find_pictures
from guardjax.eval.policy_set import check_policies, pins_of
from guardjax.eval.scoring import Reply, Scoring
from guardjax.eval.verdict_record import Pins, VerdictRecord
from guardjax.policies import Policy, Verdict, Wording, parse_verdict

_MAX_HELD_PIXELS = 64_000_000    # decoded pictures that wait for a full batch


def judge_pictures(
    pictures: Sequence[str | Path], policies: Sequence[Policy], answer: Answer, *,
    model_hash: str, out: str | Path | None = None, wording: Wording | int = 0,
    batch_size: int = 16, limits: Limits = Limits(), scoring: Scoring = Scoring(),
    on_record: Callable[[VerdictRecord], None] | None = None,
) -> list[VerdictRecord]:
    """Judges files and folders of pictures; a record for each picture and policy, in that order.

    Args:
      pictures: files and folders (`find_pictures`).
      policies: each once; each is rendered once, so the whole batch sees the same words.
      answer: the model; it is called with at most `batch_size` pictures at a time, each under all
        policies.
      model_hash: what identifies the model's weights.
      out: where records go (`Journal`): a batch that was killed goes on where it stopped, and a
        file that was judged under the same policies by the same model is not judged again.
      wording: how the policies are put into words.
      limits: of intake.
      scoring: how `answer` scores; part of what a verdict depends on.
      on_record: called with every record as soon as it is known.

    Raises:
      PolicySetError: no policy, or one twice.
      OutputMismatch: `out` belongs to other policies or another model.
      OSError: `out` cannot be written.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; it must be at least 1")
    check_policies(policies)
    texts = [policy.render(wording) for policy in policies]
    pins = pins_of(policies, texts, model_hash=model_hash, intake_version=INTAKE_VERSION,
                   scoring=str(scoring))
    partial = () if out is None else (Path(out), Path(f"{out}.partial"))
    found = find_pictures(pictures, leave_out=partial)
    with Journal(out, pins) if out is not None else contextlib.nullcontext() as journal:
        batch = _Batch(found, policies, pins, Asker(answer, texts, batch_size), limits,
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
    policies: Sequence[Policy]
    pins: list[Pins]
    asker: Asker
    limits: Limits
    known: dict[tuple[str, Pins], VerdictRecord]    # (hash of a file, pins) -> its verdict

    def __post_init__(self) -> None:
        self._records: dict[tuple[int, int], VerdictRecord] = {}
        self._waiting: dict[str, Job] = {}

    def in_order(self) -> list[VerdictRecord]:
        return [self._records[place, policy] for place in range(len(self.found))
                for policy in range(len(self.policies))]

    def run(self) -> Iterator[VerdictRecord]:
        for place, item in enumerate(self.found):
            for policy, record in self._take_in(place, item).items():
                yield self._keep(place, policy, record)
            jobs = self._waiting.values()
            if (sum(len(job.views) for job in jobs) >= self.asker.batch_size
                    or sum(view.size for job in jobs for view in job.views)
                    >= 3 * _MAX_HELD_PIXELS):
                yield from self._flush()
        yield from self._flush()

    def _keep(self, place: int, policy: int, record: VerdictRecord) -> VerdictRecord:
        self._records[place, policy] = record
        if record.judged and record.image_sha256:
            self.known[record.image_sha256, record.pins] = record
        return record

    def _take_in(self, place: int, item: Found) -> dict[int, VerdictRecord]:
        """Records of the policies that the model need not be asked for; for others it waits."""
        name, digest, records = str(item.path), None, {}
        everything = range(len(self.policies))
        try:
            if item.problem:
                raise IntakeError("E_READ", item.problem)
            data = read_file(item.path, self.limits)
            digest = hashlib.sha256(data).hexdigest()
            records = {policy: dataclasses.replace(self.known[digest, pins], picture=name)
                       for policy, pins in enumerate(self.pins) if (digest, pins) in self.known}
            missing = [policy for policy in everything if policy not in records]
            if missing:
                if digest not in self._waiting:
                    self._waiting[digest] = Job(load_picture(data, self.limits), missing, [])
                self._waiting[digest].places.append(place)
            return records
        except IntakeError as error:
            return {policy: records.get(policy) or self._error(
                policy, name, error.code, error.message, image_sha256=digest)
                for policy in everything}

    def _flush(self) -> Iterator[VerdictRecord]:
        questions = [Question(job, policy) for job in self._waiting.values()
                     for policy in job.policies]
        self._waiting.clear()
        for question, answers in zip(questions, self.asker.ask(questions), strict=True):
            for place in question.job.places:
                record = self._record(str(self.found[place].path), question, answers)
                yield self._keep(place, question.policy, record)

    def _record(self, name: str, question: Question, answers: list[Reply] | Exception
                ) -> VerdictRecord:
        picture, policy = question.job.picture, question.policy
        about = {
            "image_sha256": picture.sha256, "image_format": picture.format,
            "image_size": picture.size, "frame_count": picture.frame_count,
            "notes": picture.notes}
        if isinstance(answers, Exception):
            if isinstance(answers, PromptError):
                return self._error(policy, name, "E_PROMPT", str(answers), **about)
            return self._error(policy, name, "E_MODEL", f"{type(answers).__name__}: {answers}",
                               **about)
        parsed = (_verdict(reply, self.policies[policy]) for reply in answers)
        result = combine([[next(parsed) for _ in frame.views] for frame in picture.frames])
        return VerdictRecord(
            picture=name, decision=str(result.outcome), pins=self.pins[policy],
            status="ok" if result.problem is None else f"invalid:{result.problem}",
            rule_ids=result.rule_ids, rationale=result.rationale, problem=result.problem,
            frames_scored=len(picture.frames), outputs=tuple(reply.text for reply in answers),
            p_unsafe=tuple(reply.score.p_unsafe for reply in answers if reply.score), **about)

    def _error(self, policy: int, name: str, code: str, message: str, **about: Any
               ) -> VerdictRecord:
        return VerdictRecord(picture=name, decision="needs_review", status=f"error:{code}",
                             problem=message, pins=self.pins[policy], **about)


def _verdict(reply: Reply, policy: Policy) -> Verdict:
    if reply.verdict is not None:
        return reply.verdict
    return parse_verdict(reply.text, policy.rule_ids, truncated=reply.truncated)
