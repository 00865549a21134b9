"""Dynamic sampling (DAPO, arXiv 2503.14476): an update of prompts whose answers disagree.

A prompt whose G rewards, with the penalty for long answers, are all equal gives no gradient (DAPO
asks whether all are right or all wrong, which is another thing only where a length is punished).
Further batches are drawn from the stage's data until enough prompts have mixed rewards; what was
sampled once is kept, never sampled again. The draws advance the data iterator, whose position is
part of every checkpoint, so a resumed run draws the same batches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from guardjax.data.batching import Batcher
from guardjax.data.sources import Batch
from guardjax.train.config import StageConfig
from guardjax.train.loop import DataEndedError
from guardjax.train.sharding import Placement
from guardjax.train.stages.rollout import Rollout


def check_source(config: StageConfig, num_batches: int) -> None:
    """Checks that a stage's data lasts if every step draws all its rounds.

    Raises:
      ValueError: with the number of batches that it takes.
    """
    needed = config.steps * config.rl.dynamic_rounds
    if num_batches < needed:
        raise ValueError(
            f"stage {config.name!r}: {config.steps} steps of up to {config.rl.dynamic_rounds} "
            f"rounds may draw {needed} batches, and the data has {num_batches}: give it {needed}, "
            "or lower rl.dynamic_rounds")


def draw_rounds(roll: Callable[[Batch, int], Rollout], batch: Batch, more: Iterator[Batch],
                rounds: int) -> list[Rollout]:
    """Returns rollouts of `batch` and the next ones, until B prompts are mixed.

    Args:
      roll: (batch, how many prompts were drawn before it) -> its rollout.
      batch: the first B prompts.
      more: batches of B prompts; it is advanced only by those that are used.
      rounds: at most so many rollouts, the first included.

    Raises:
      DataEndedError: if `more` ends.
    """
    size = len(batch.examples)
    drawn = [roll(batch, 0)]
    mixed = _num_mixed(drawn[0])
    while mixed < size and len(drawn) < rounds:
        try:
            batch = next(more)
        except StopIteration:
            raise DataEndedError(
                f"the data ended in round {len(drawn) + 1} of dynamic sampling; it needs as many "
                "batches as steps times rl.dynamic_rounds") from None
        drawn.append(roll(batch, size * len(drawn)))
        mixed += _num_mixed(drawn[-1])
    return drawn


def choose_prompts(flat: np.ndarray, size: int) -> np.ndarray:
    """Returns [size] indices: the first mixed prompts, then the last of the flat ones.

    Args:
      flat: [n] bool with n >= size, True where a prompt's rewards are all equal.
      size: B.
    """
    mixed = np.flatnonzero(~flat)[:size]
    fillers = np.flatnonzero(flat)
    return np.concatenate([mixed, fillers[len(fillers) - (size - len(mixed)):]])


def gather_update(drawn: Sequence[Rollout], batcher: Batcher,
                  placement: Placement | None = None) -> dict[str, Any]:
    """Returns the arrays of an update on B of the drawn prompts, in the shapes of one batch.

    All processes choose alike, and with a `placement` each returns its own rows of the choice.
    Prompts of different batches, perhaps of different lengths, are padded anew as one batch. Their
    image features are left out: they are of different widths, and the update encodes the pictures.
    """
    examples = [example for rollout in drawn for example in rollout.examples]
    flat = np.concatenate([rollout.flat for rollout in drawn])
    chosen = choose_prompts(flat, len(drawn[0].examples))
    answers = [rollout.answers() for rollout in drawn]
    rows = slice(None) if placement is None else placement.rows(len(chosen))
    joined = {name: np.concatenate([each[name] for each in answers])[chosen][rows]
              for name in answers[0]}
    prompts = batcher.prompts([examples[i] for i in chosen], rows)
    return joined | {"prompts": prompts, "features": None}


def round_metrics(drawn: Sequence[Rollout]) -> dict[str, tuple[float, float]]:
    """(sum, count): rounds and prompts drawn a step, and the share of them kept as mixed."""
    size = len(drawn[0].examples)
    prompts = float(sum(len(rollout.examples) for rollout in drawn))
    kept = float(min(size, sum(map(_num_mixed, drawn))))
    return {"dynamic/rounds": (float(len(drawn)), 1.0), "dynamic/drawn": (prompts, 1.0),
            "dynamic/kept": (kept, prompts)}


def _num_mixed(rollout: Rollout) -> int:
    return int((~rollout.flat).sum())
