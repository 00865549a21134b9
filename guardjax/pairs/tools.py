"""The two protocols: who looks at a picture, and who changes one."""

from __future__ import annotations

import dataclasses
import re
from typing import Protocol

import numpy as np

from guardjax.policies import Policy

_SAFE = "safe"
_MAX_INSTRUCTION = 500      # characters; more is an essay, not an edit


class ToolError(ValueError):
    """A tool gave no answer, or one that cannot be used; the message says which and what to do."""


class ToolUnavailable(ToolError):
    """A tool that answers nobody: no server, no key, no such model. The next picture is no use."""


@dataclasses.dataclass(frozen=True)
class Assessment:
    """What an assessor found: nothing to change, or what must be replaced for the picture to be
    allowed."""

    instruction: str        # "" where the picture is allowed

    @property
    def safe(self) -> bool:
        """Whether the policy allows the picture."""
        return not self.instruction


class Assessor(Protocol):
    """Looks at pictures, `[H, W, 3]` uint8. Errors are `ToolError`."""

    identity: str           # everything that its answers depend on, as text: part of their key

    def assess(self, picture: np.ndarray, policy: Policy, attempt: int = 0) -> Assessment:
        """Whether the policy allows the picture, and else what to replace; `attempt` varies it."""
        ...

    def caption(self, picture: np.ndarray) -> str:
        """What is to be seen, in a sentence or a few: a draft."""
        ...

    def restore(self, picture: np.ndarray, draft: str) -> str:
        """The draft with what matters to safety and was left out or played down."""
        ...


class Editor(Protocol):
    """Changes pictures. Errors are `ToolError`."""

    identity: str

    def edit(self, picture: np.ndarray, instruction: str, attempt: int = 0) -> np.ndarray:
        """The picture with one thing replaced, `[H, W, 3]` uint8; `attempt` varies it."""
        ...


def read_assessment(text: str) -> Assessment:
    """An assessor's own words: "safe", or an instruction.

    Raises:
      ToolError: nothing was said, or an essay.
    """
    words = " ".join(text.split())
    if re.fullmatch(rf"[\"'*]*{_SAFE}[\"'*.!]*", words, re.IGNORECASE):
        return Assessment("")
    if not words or len(words) > _MAX_INSTRUCTION:
        raise ToolError(f"the assessor said {words[:60]!r} ({len(words)} characters), which is "
                        f"neither {_SAFE!r} nor an instruction of at most {_MAX_INSTRUCTION}")
    return Assessment(words)
