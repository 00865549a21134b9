"""Stage `sft`: cross-entropy on the answer's tokens."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from guardjax.data.sources import Batch, BatchSource
from guardjax.rl.answers import completion_mask
from guardjax.rl.logprobs import AnswerStates, token_logprobs
from guardjax.train.config import StageConfig
from guardjax.train.stages.model import StageModel
from guardjax.train.stages.trained import Program, TrainedStage
from guardjax.train.state import Bundle


class SFTStage(TrainedStage):
    """Supervised fine-tuning over a source of answered examples."""

    def __init__(self, config: StageConfig, model: StageModel, source: BatchSource, seed: int):
        super().__init__(config, source, seed, placement=model.placement)
        self._model, self._transform = model, model.transform()
        self.jits = [self._make_step(self._loss, config.name)]

    def step(self, bundle: Bundle, batch: Batch) -> tuple[Bundle, Any, None]:
        """One update."""
        return self._update(bundle, self._arrays(batch))

    def programs(self, bundle: Bundle, batch: Batch) -> tuple[Program, ...]:
        """What a step runs; shapes may stand in the place of arrays."""
        return (Program(self.jits[0], (bundle.state, bundle.frozen, self._arrays(batch))),)

    def _arrays(self, batch: Batch) -> dict[str, Any]:
        return {"prompts": batch.prompts, "tokens": batch.tokens, "length": batch.length}

    def _loss(self, trained: Any, frozen: Any, batch: dict[str, Any], key: jax.Array):
        """(sum, count, metrics) as `steps.make_train_step` wants them."""
        del key
        return self._cross_entropy(self.recipe.merge(trained, frozen), batch)

    def _cross_entropy(self, params: Any, batch: dict[str, Any],
                       states: AnswerStates | None = None):
        logp, _ = token_logprobs(
            self._model.fns, params, batch["prompts"], batch["tokens"], batch["length"],
            self._transform, states=states)
        mask = completion_mask(batch["length"], batch["tokens"].shape[-1])
        count = mask.sum().astype(jnp.float32)
        whole = jnp.all((logp > jnp.log(0.5)) | ~mask, axis=-1)
        metrics = {"sft/likely_answers": (whole.sum(), jnp.float32(whole.size)),
                   "sft/tokens": (count, jnp.float32(whole.size))}
        return -logp.sum(), count, metrics
