"""What every stage needs of the model that it trains."""

from __future__ import annotations

import dataclasses

from guardjax.data.batching import Batcher
from guardjax.models.config import ModelConfig
from guardjax.rl.model_fns import ModelFns
from guardjax.rl.transform import LogitTransform, make_transform
from guardjax.train.sharding import Placement


@dataclasses.dataclass(frozen=True)
class StageModel:
    """A model's functions, its config and its batcher. Parameters travel in the bundle.

    `placement` is where its arrays live; None is one device.
    """

    cfg: ModelConfig
    fns: ModelFns
    batcher: Batcher
    placement: Placement | None = None

    def blocked(self) -> list[int]:
        """Ids that may never be sampled: special tokens but the end, and those without a text."""
        tokenizer = self.batcher.tokenizer
        return [*tokenizer.forbidden_ids(),
                *range(tokenizer.vocab_size, self.cfg.text.vocab_size)]

    def transform(self, temperature: float = 1.0) -> LogitTransform:
        """The logit transform of sampling and loss: no special token but the end, no unused id."""
        return make_transform(
            self.cfg.text.vocab_size, temperature=temperature, blocked=self.blocked())
