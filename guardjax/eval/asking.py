"""Pictures under policies as questions to a model, of which a broken one spoils no other."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from guardjax.data.intake import Picture
from guardjax.eval.scoring import Reply

# Pictures [H, W, 3] uint8 and for each a policy's text -> for each (text, cut off by the limit?),
# and where the model did not write a verdict the one that its score means (`scoring.Reply`).
# A picture under several policies comes several times, as one array.
Answer = Callable[[list[np.ndarray], list[str]], Sequence[tuple[str, bool] | Reply]]


@dataclasses.dataclass(eq=False)
class Job:
    """A picture that waits for verdicts.

    Attributes:
      picture: what is shown.
      policies: places of the policies whose verdict is not known.
      places: where its records go; equal files are one job.
    """

    picture: Picture
    policies: list[int]
    places: list[int]

    @property
    def views(self) -> list[np.ndarray]:
        """All that must be judged of it, [H, W, 3] uint8."""
        return [view for frame in self.picture.frames for view in frame.views]


class Question(NamedTuple):
    """A picture under one policy: what has one verdict."""

    job: Job
    policy: int


@dataclasses.dataclass(frozen=True)
class Asker:
    """A model with the policies' words.

    Attributes:
      answer: the model.
      texts: of the policies.
      batch_size: views that are asked about at a time, each under all its policies.
    """

    answer: Answer
    texts: Sequence[str]
    batch_size: int

    def ask(self, questions: Sequence[Question]) -> list[list[Reply] | Exception]:
        """For each question its answers, one a view, or why it has none."""
        try:
            return self._answers(questions)
        except Exception as error:      # whatever a model does, the batch goes on
            if len(questions) == 1:
                return [error]
            # One policy, or one picture, may have spoilt it for all.
            answers: dict[int, list[Reply] | Exception] = {}
            for places in _apart(questions):
                again = self.ask([questions[place] for place in places])
                answers.update(zip(places, again, strict=True))
            return [answers[place] for place in range(len(questions))]

    def _answers(self, questions: Sequence[Question]) -> list[list[Reply]]:
        answers: list[list[Reply]] = [[] for _ in questions]
        for shown in self._batches(questions):
            reply = list(self.answer([view for view, _ in shown],
                                     [self.texts[questions[place].policy] for _, place in shown]))
            if len(reply) != len(shown):
                raise ValueError(f"the model gave {len(reply)} answers for {len(shown)} pictures")
            for (_, place), item in zip(shown, reply, strict=True):
                text, truncated, *rest = item
                if not isinstance(text, str) or not isinstance(truncated, (bool, np.bool_)):
                    raise TypeError("the model's answer is not (text, truncated)")
                answers[place].append(Reply(text, bool(truncated), *rest))
        return answers

    def _batches(self, questions: Sequence[Question]) -> Iterator[list[tuple[np.ndarray, int]]]:
        """(view, place of its question); a view's questions are together."""
        of_job: dict[Job, list[int]] = {}
        for place, question in enumerate(questions):
            of_job.setdefault(question.job, []).append(place)
        views = [(view, places) for job, places in of_job.items() for view in job.views]
        for start in range(0, len(views), self.batch_size):
            yield [(view, place) for view, places in views[start:start + self.batch_size]
                   for place in places]


def _apart(questions: Sequence[Question]) -> list[list[int]]:
    """Places of the questions policy by policy; where there is but one policy, one by one."""
    of_policy: dict[int, list[int]] = {}
    for place, question in enumerate(questions):
        of_policy.setdefault(question.policy, []).append(place)
    if len(of_policy) > 1:
        return list(of_policy.values())
    return [[place] for place in range(len(questions))]
