"""Reward functions in TRL's convention, taken as they are."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from guardjax.rewards.limit import finished
from guardjax.rewards.reward import Reward, split_none
from guardjax.types import PolicyExample

# Of every example, and `solution`, the answer under the name that ms-swift's functions expect.
COLUMNS = (*(field.name for field in dataclasses.fields(PolicyExample)), "solution")


def from_trl(function: Callable[..., Any], *, conversational: bool = False) -> Reward:
    """Adapts `(prompts, completions, **columns) -> list of float or None`, plain or async.

    The columns are the fields of `PolicyExample`, each a list of n, and `solution`. A function
    gets those that it names, or all if it takes `**kwargs`. A prompt is the policy's text and the
    question. A None in the result means "does not apply". Token ids, the trainer's state and its
    loggers are not passed.

    Args:
      function: the reward function.
      conversational: prompts and completions are lists of one message each, as TRL has them for
        chats: `[{"role": "assistant", "content": text}]`. Else they are strings.

    Raises:
      ValueError: the function insists on an argument that is not among these.
    """
    accepted = inspect.signature(function).parameters.values()
    given = ("prompts", "completions", *COLUMNS)
    for parameter in accepted:
        if (parameter.name not in given and parameter.default is parameter.empty
                and parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)):
            raise ValueError(f"the reward function wants {parameter.name!r}, which is not among "
                             f"what it can have: {', '.join(given)}")
    takes_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in accepted)
    wanted = [name for name in given
              if takes_all or name in {parameter.name for parameter in accepted}]

    @functools.wraps(function)
    def reward(
        examples: Sequence[PolicyExample], completions: Sequence[str]
    ) -> tuple[np.ndarray, np.ndarray]:
        columns = _columns(examples, completions, conversational)
        try:
            scores = function(**{name: columns[name] for name in wanted})
            if inspect.isawaitable(scores):
                scores = finished(scores)
        except TypeError as error:
            if not conversational and "string indices" in str(error):
                raise TypeError(
                    f"{error}; a function that reads completion[0]['content'] is adapted by "
                    "from_trl(function, conversational=True)") from error
            raise
        return split_none(scores)

    return reward


def _columns(examples: Sequence[PolicyExample], completions: Sequence[str],
             conversational: bool) -> dict[str, list[Any]]:
    def told(role: str, text: str) -> Any:
        return [{"role": role, "content": text}] if conversational else text

    columns = {field.name: [getattr(example, field.name) for example in examples]
               for field in dataclasses.fields(PolicyExample)}
    return columns | {
        "solution": columns["answer"],
        "prompts": [told("user", f"{e.policy_text}\n{e.question}".strip()) for e in examples],
        "completions": [told("assistant", text) for text in completions],
    }
