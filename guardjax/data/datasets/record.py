"""What every reader gives: one picture under one policy with the label that people gave it, or one
picture with its caption."""

from __future__ import annotations

import dataclasses

import numpy as np

from guardjax.data.prompts import CAPTION_QUESTION, JUDGE_QUESTION
from guardjax.policies import Label, Policy, Wording, format_verdict
from guardjax.types import PolicyExample

LABELS = SAFE, UNSAFE = "safe", "unsafe"
ONE_RULE = "R1"         # what a verdict cites of a policy whose text names no rules


class DatasetError(ValueError):
    """A data set that cannot be used as it lies there: which file, which row and what to do."""


@dataclasses.dataclass(frozen=True)
class ShownPolicy:
    """A policy as a model is shown it; `rules` are the ids that a verdict may cite."""

    id: str
    text: str
    rules: tuple[str, ...]

    @classmethod
    def of(cls, policy: Policy) -> ShownPolicy:
        """A policy of ours in its first wording."""
        return cls(policy.id, policy.render(Wording(0)), policy.rule_ids)

    @classmethod
    def written(cls, policy_id: str, text: str) -> ShownPolicy:
        """A text without rule ids, as one rule: a verdict has to name what it cites."""
        return cls(policy_id, f"{ONE_RULE}: {text.strip()}", (ONE_RULE,))


NO_POLICY = ShownPolicy("", "", ())      # of captions


@dataclasses.dataclass(frozen=True)
class Record:
    """One row. `image` is None in the records of a reader that were not read with their picture.

    Attributes:
      dataset, split: where it is from.
      row_id: its id, unique within the split.
      place: file and row, for people.
      policy: what the picture is judged under; `NO_POLICY` for a caption.
      label: "safe" or "unsafe"; "" for a caption.
      rule_ids: the violated rules of the policy, () where the annotation does not say.
      category, rationale: of the annotation, "" without one.
      image_id: equal for rows with the same picture; "" until the picture is read, where the data
        set does not say.
      pair_id: the edited pair that the picture belongs to.
      variant: how the policy differs from the data set's usual one, "" if it does not.
      text: words that come with the picture (a meme's text, a question); not shown to a guard.
      caption: what is to be said of the picture, where nothing is judged; else "".
      image: [H, W, 3] uint8. Of an animation the first frame; what is transparent lies on white.
    """

    dataset: str
    split: str
    row_id: str
    place: str
    policy: ShownPolicy
    label: str
    rule_ids: tuple[str, ...] = ()
    category: str = ""
    rationale: str = ""
    image_id: str = ""
    pair_id: str = ""
    variant: str = ""
    text: str = ""
    caption: str = ""
    image: np.ndarray | None = None


def example_id(record: Record) -> str:
    """The id of the question that a record asks."""
    return f"{record.dataset}/{record.split}/{record.row_id}"


def to_example(record: Record) -> PolicyExample:
    """The question to a model that a record asks, as evaluation and GRPO take it."""
    if record.caption:
        return PolicyExample(
            example_id=example_id(record), kind="caption", question=CAPTION_QUESTION,
            image=record.image, image_id=record.image_id, pair_id=record.pair_id)
    return PolicyExample(
        example_id=example_id(record),
        kind="judge", question=JUDGE_QUESTION, policy_text=record.policy.text, image=record.image,
        label=record.label, rule_ids=record.rule_ids, image_id=record.image_id,
        policy_id=record.policy.id, pair_id=record.pair_id, facts={"rules": record.policy.rules})


def answered(record: Record, *, think: bool = False) -> PolicyExample:
    """The same with the answer that SFT teaches; `think` puts the rationale before the verdict.

    Raises:
      DatasetError: the row is unsafe and no rule is known for it, which a verdict must cite; or
        `think` is asked of a row without a rationale, or with one that holds tags.
    """
    if record.label == UNSAFE and not record.rule_ids:
        raise DatasetError(
            f"{record.place}: the row is unsafe and names no rule of policy {record.policy.id!r} "
            f"({', '.join(record.policy.rules)}), which the answer to learn has to cite; give it a "
            "category that is the id of a rule, or train by GRPO, which needs the label alone")
    if think and not record.rationale.strip():
        raise DatasetError(f"{record.place}: the row has no rationale to think with; set think to "
                           "false")
    if record.caption:      # a space before it, as before the world's (`tasks.describe`)
        return dataclasses.replace(to_example(record), answer=f" {record.caption}")
    try:
        answer = format_verdict(Label(record.label, record.rule_ids),
                                record.rationale if think else None)
    except ValueError as error:
        raise DatasetError(f"{record.place}: {error}") from error
    return dataclasses.replace(to_example(record), answer=answer)
