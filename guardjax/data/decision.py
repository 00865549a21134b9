"""Where an answer decides: the first token at which a safe and an unsafe one differ."""

from __future__ import annotations

import dataclasses

from guardjax.data.tokenizer import Tokenizer, TokenizerError
from guardjax.policies import Label, format_verdict

# Rules that an unsafe answer may cite first: the decision must not depend on which.
_CITED = (("R1",), ("R2",), ("R9",), ("R10",), ("R1", "R2"))


@dataclasses.dataclass(frozen=True)
class Decision:
    """The decision of an answer without a rationale.

    Attributes:
      position: index of the decision token in an answer's tokens.
      safe, unsafe: its id in either answer.
    """

    position: int
    safe: int
    unsafe: int


def decision_of(tokenizer: Tokenizer) -> Decision:
    """The one place where the two forms of a verdict part.

    Raises:
      TokenizerError: there is none, as one form begins with the other, or it depends on the rules
        that are cited.
    """
    safe = tokenizer.untrusted(format_verdict(Label("safe")))
    found = {_first_difference(safe, tokenizer.untrusted(format_verdict(Label("unsafe", rules))))
             for rules in _CITED}
    if len(found) != 1 or None in found:
        raise TokenizerError(
            "the verdicts 'safe' and 'unsafe' do not part at one token with this tokenizer (found "
            f"{sorted(map(str, found))}), so no logits can be compared there; use kind 'sft', or "
            "a tokenizer that keeps the verdict words apart")
    return found.pop()


def _first_difference(safe: list[int], unsafe: list[int]) -> Decision | None:
    for position, (one, other) in enumerate(zip(safe, unsafe)):
        if one != other:
            return Decision(position, one, other)
    return None
