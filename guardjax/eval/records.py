"""What a model answered to one example, beside what was right: the raw material of every metric."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

from guardjax.atomic import write_text
from guardjax.types import PolicyExample

JUDGED_KINDS = ("judge", "read")           # answered with a verdict, so they have a label
RECALL_KINDS = ("caption", "question")     # answered with words that must match exactly
LABELS = ("safe", "unsafe")
OUTCOMES = ("safe", "unsafe", "needs_review")


class ParsedVerdict(Protocol):
    """The part of `guardjax.policies.verdict.Verdict` that a prediction keeps."""

    outcome: str
    rule_ids: tuple[str, ...]
    problem: str | None


@dataclasses.dataclass(frozen=True)
class Prediction:
    """One answer of one model, with its gold answer.

    A row of kind "judge" or "read" has `label`, `rule_ids` (gold) and `outcome`, `cited_rules`,
    `problem` (predicted), and `p_unsafe` where that is known. A row of kind "caption" or
    "question" has `answer` (gold), and its prediction is `output`. Raises `ValueError`, naming the
    example, where a value is outside those allowed: a label is never coerced.
    """

    model: str
    variant: str
    seed: int
    split: str
    example_id: str
    kind: str
    image_id: str
    policy_id: str = ""
    pair_id: str = ""
    label: str | None = None
    rule_ids: tuple[str, ...] = ()
    answer: str = ""
    output: str = ""
    outcome: str | None = None
    cited_rules: tuple[str, ...] = ()
    problem: str | None = None
    p_unsafe: float | None = None      # where the guard scored by one token (`scoring.py`)
    prompt_tokens: int | None = None   # those of the picture among them; None: not known
    answer_tokens: int | None = None   # the end token among them; 0 where none was sampled

    def __post_init__(self) -> None:
        judged = self.kind in JUDGED_KINDS
        if not judged and self.kind not in RECALL_KINDS:
            raise ValueError(f"example {self.example_id!r}: unknown kind {self.kind!r}")
        if judged and self.label not in LABELS:
            raise ValueError(f"example {self.example_id!r}: label {self.label!r} is not one of "
                             f"{', '.join(LABELS)}")
        if judged and self.outcome not in OUTCOMES:
            raise ValueError(f"example {self.example_id!r}: outcome {self.outcome!r} is not one "
                             f"of {', '.join(OUTCOMES)}")

    @property
    def judged(self) -> bool:
        """Whether the answer is a verdict."""
        return self.kind in JUDGED_KINDS

    @property
    def cluster(self) -> str:
        """The unit of resampling, a scene: the edited pair, or the picture if it has no twin."""
        return self.pair_id or self.image_id

    @property
    def right(self) -> bool:
        """Whether the verdict, or the text up to white space, is the gold one."""
        if self.judged:
            return self.outcome == self.label
        return " ".join(self.output.split()) == " ".join(self.answer.split())


def predict_row(
    example: PolicyExample, output: str, verdict: ParsedVerdict | None, *,
    model: str, variant: str, seed: int, split: str, p_unsafe: float | None = None,
    prompt_tokens: int | None = None, answer_tokens: int | None = None,
) -> Prediction:
    """The prediction that `output`, parsed as `verdict`, makes for `example`.

    `verdict` is None for captions and questions. Raises `ValueError` for a label outside
    {safe, unsafe}.
    """
    return Prediction(
        model=model, variant=variant, seed=seed, split=split, example_id=example.example_id,
        kind=example.kind, image_id=example.image_id or example.example_id,
        policy_id=example.policy_id, pair_id=example.pair_id, label=example.label,
        rule_ids=tuple(example.rule_ids), answer=example.answer, output=output,
        outcome=verdict.outcome if verdict else None,
        cited_rules=tuple(verdict.rule_ids) if verdict else (),
        problem=verdict.problem if verdict else None, p_unsafe=p_unsafe,
        prompt_tokens=prompt_tokens, answer_tokens=answer_tokens)


def save_predictions(path: str | Path, predictions: Iterable[Prediction]) -> None:
    """Writes one JSON object a line, the whole file in one step."""
    rows = (json.dumps(dataclasses.asdict(row), ensure_ascii=True) for row in predictions)
    write_text(path, "".join(f"{row}\n" for row in rows))


def load_predictions(path: str | Path) -> list[Prediction]:
    """Reads what `save_predictions` wrote; `ValueError` names the line that is not a prediction."""
    rows = []
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").split("\n"), start=1):
        if not line.strip():
            continue
        try:
            rows.append(prediction_from_json(json.loads(line)))
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path}, line {number}: not a prediction ({error})") from error
    return rows


def prediction_from_json(row: Any) -> Prediction:
    """A prediction from its JSON object. Raises `TypeError` or `ValueError` for anything else."""
    if not isinstance(row, dict):
        raise TypeError("not an object")
    return Prediction(**{key: tuple(value) if isinstance(value, list) else value
                         for key, value in row.items()})
