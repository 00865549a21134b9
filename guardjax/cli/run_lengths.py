"""The lengths of a run: those of its config, or of the folder that it starts from."""

from __future__ import annotations

import dataclasses

from guardjax.data.batching import Batcher
from guardjax.data.lengths import ANSWER_LIMIT
from guardjax.models.config import ModelConfig
from guardjax.train.config import ConfigError, RunConfig


def with_lengths(batcher: Batcher, run: RunConfig, cfg: ModelConfig) -> Batcher:
    """The base's batcher with the run's lengths.

    The trained guard may write as much as its base, unless the run says what it learns:
    `lengths.answer` holds all answers to learn, so its last is the limit then, be the base's larger
    (verdicts after captions) or smaller, but never less than the usual one. `rl.max_tokens` of a
    GRPO stage raises the limit and cuts nothing: it is of that stage's prompts, and what the base
    writes to others may be longer.

    Raises:
      ConfigError: lengths that the model has no positions for; names the key.
    """
    room = cfg.text.max_position_embeddings
    for key, sizes in dataclasses.asdict(run.lengths).items():
        if sizes and sizes[-1] > room:
            raise ConfigError(f"lengths.{key}: {sizes[-1]} tokens are more than the base has "
                              f"positions for, which are {room} (max_position_embeddings)")
    limit = batcher.answer_limit
    if run.lengths.answer:
        limit = max(ANSWER_LIMIT, run.lengths.answer[-1])
    sampled = [stage.rl.max_tokens for stage in run.stages if stage.kind == "grpo"]
    return dataclasses.replace(
        batcher, prompt_buckets=run.lengths.prompt or batcher.prompt_buckets,
        answer_buckets=run.lengths.answer or batcher.answer_buckets,
        answer_limit=max([limit, *sampled]))
