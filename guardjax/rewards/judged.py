"""How a completion is held against an example's label: the ground of the verdict rewards."""

from __future__ import annotations

from guardjax.policies.verdict import Verdict, parse_verdict
from guardjax.types import PolicyExample

LABELS = ("safe", "unsafe")


def gold_label(example: PolicyExample) -> str | None:
    """The example's label, None where it has none (captions, questions).

    Raises:
      ValueError: a label outside {safe, unsafe}; it is never coerced.
    """
    if example.label is not None and example.label not in LABELS:
        raise ValueError(
            f"example {example.example_id!r} has the label {example.label!r}, "
            f"not one of {', '.join(LABELS)}"
        )
    return example.label


def read_verdict(example: PolicyExample, completion: str) -> Verdict:
    """Parses a completion under the rules of the example's policy (`facts["rules"]`, if there)."""
    return parse_verdict(completion, example.facts.get("rules"))
