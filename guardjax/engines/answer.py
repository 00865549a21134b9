"""What an engine answered: read, checked, and put beside the others as samples."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from guardjax.engines.prompt import EnginePrompt
from guardjax.rl.engine import Decoding, EngineError
from guardjax.types import Samples

# An engine may round a certain token's log-probability to a little above 0.
_ABOVE_ZERO = 1e-4


class AnswerError(EngineError):
    """An answer that cannot be trained on."""


@dataclasses.dataclass(frozen=True)
class Answer:
    """One completion as the engine tells it; nothing is checked yet.

    Attributes:
      tokens: ids, the one that ended it included.
      logps: of each under the distribution it was drawn from, None where there is none.
      finish: "stop", "length", or the engine's own word for something else.
      prompt: the ids that the engine saw, or how many where it tells no more.
      version: of the weights, None where the engine does not tell it.
    """

    tokens: Sequence[int]
    logps: Sequence[float | None]
    finish: str
    prompt: Sequence[int] | int
    version: str | None = None


@dataclasses.dataclass(frozen=True)
class Checked:
    """A completion to train on: `tokens` [n] and `logps` [n], whether it ended by itself."""

    tokens: tuple[int, ...]
    logps: tuple[float, ...]
    ended: bool


def one_of(items: Any, what: str) -> Any:
    """The only entry of a list.

    Raises:
      AnswerError: there are more, or none.
    """
    if not isinstance(items, list) or len(items) != 1:
        num = len(items) if isinstance(items, list) else "no list of"
        raise AnswerError(f"asked for 1 completion and got {num} {what}")
    return items[0]


def check_answer(answer: Answer, prompt: EnginePrompt, decoding: Decoding, vocab_size: int,
                 ) -> Checked:
    """The answer as far as its first end, if all of it can be believed.

    An end is one of `SamplingParams.stops`. Where the engine went past one that it does not know,
    the rest is cut: what comes before does not depend on it.

    Raises:
      AnswerError: naming what is wrong.
    """
    _check_prompt(answer.prompt, prompt.ids)
    limit = decoding.sampling.max_tokens
    if not 1 <= len(answer.tokens) <= limit:
        raise AnswerError(f"got {len(answer.tokens)} tokens, and max_tokens is {limit}")
    if len(answer.logps) != len(answer.tokens):
        raise AnswerError(f"got {len(answer.logps)} log-probabilities of {len(answer.tokens)} "
                          "tokens")
    for place, (token, logp) in enumerate(zip(answer.tokens, answer.logps, strict=True)):
        _check_token(place, token, logp, decoding, vocab_size)
    tokens = tuple(answer.tokens)
    end = _first_end(tokens, decoding.sampling.stops)
    if end is None and answer.finish == "stop":
        raise AnswerError(f"it was stopped after token {tokens[-1]}, which ends no answer here; "
                          "the engine has another end token, or leaves it out")
    if end is None and (answer.finish != "length" or len(tokens) < limit):
        raise AnswerError(f"it broke off ({answer.finish!r}) after {len(tokens)} of {limit} tokens "
                          "without an end; is the engine's context (--max-model-len) long enough?")
    kept = len(tokens) if end is None else end
    logps = tuple(min(float(logp), 0.0) for logp in answer.logps[:kept])
    return Checked(tokens[:kept], logps, end is not None)


def as_samples(answers: Mapping[tuple[int, int], Checked], lead: tuple[int, int],
               decoding: Decoding) -> Samples:
    """Samples [B, G] on the host of the answers by (b, g)."""
    size = (*lead, decoding.sampling.max_tokens)
    tokens = np.full(size, decoding.sampling.pad_id, np.int32)
    logp = np.zeros(size, np.float32)
    length, ended = np.zeros(lead, np.int32), np.zeros(lead, bool)
    for place, answer in answers.items():
        num = len(answer.tokens)
        tokens[place][:num], logp[place][:num] = answer.tokens, answer.logps
        length[place], ended[place] = num, answer.ended
    return Samples(tokens=tokens, length=length, logp=logp, model_logp=logp.copy(), ended=ended)


def _check_prompt(seen: Sequence[int] | int, wanted: tuple[int, ...]) -> None:
    if isinstance(seen, int):
        same, num = seen == len(wanted), seen
    else:
        same, num = tuple(seen) == wanted, len(seen)
    if not same:
        raise AnswerError(
            f"the engine saw another prompt: {num} tokens, ours has {len(wanted)}"
            f"{' (or other ones)' if num == len(wanted) else ''}. Its chat template, its tokenizer "
            "or its limits of picture sizes (min_pixels, max_pixels) are not the model's")


def _check_token(place: int, token: Any, logp: Any, decoding: Decoding, vocab_size: int) -> None:
    if type(token) is not int or not 0 <= token < vocab_size:
        raise AnswerError(f"token {place} is {token!r}, no id of a vocabulary of {vocab_size}")
    if token in decoding.blocked:
        raise AnswerError(f"token {place} is {token}, which may not be sampled: the engine does "
                          "not heed logit_bias")
    if logp is None:
        raise AnswerError(f"token {place} has no log-probability")
    if type(logp) not in (int, float) or not math.isfinite(logp) or logp > _ABOVE_ZERO:
        raise AnswerError(f"token {place} has a log-probability of {logp!r}; it must be a finite "
                          "number of at most 0")


def _first_end(tokens: tuple[int, ...], stops: Sequence[Sequence[int]]) -> int | None:
    """How many tokens there are up to the first end, that end included."""
    return next((end for end in range(1, len(tokens) + 1)
                 for stop in stops if tokens[:end][-len(stop):] == tuple(stop)), None)
