"""Stage `sft`: cross-entropy on the answer's tokens."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from guardjax.data.sources import Batch, BatchSource, iterate
from guardjax.rl.answers import completion_mask
from guardjax.rl.logprobs import token_logprobs
from guardjax.train.config import StageConfig
from guardjax.train.optim import make_optimizer, make_schedule
from guardjax.train.recipe import make_recipe, start_stage
from guardjax.train.stages.model import StageModel
from guardjax.train.state import Bundle
from guardjax.train.steps import make_train_step


class SFTStage:
    """Supervised fine-tuning over a source of answered examples."""

    def __init__(self, config: StageConfig, model: StageModel, source: BatchSource, seed: int):
        self.name, self.num_steps = config.name, config.steps
        self._source, self._seed = source, seed
        self.recipe = make_recipe(config.freeze, config.lora)
        self._tx = make_optimizer(config.optim, config.steps)
        transform = model.transform()

        def loss(trained: Any, frozen: Any, batch: dict[str, Any], key: jax.Array):
            del key
            params = self.recipe.merge(trained, frozen)
            logp, _ = token_logprobs(
                model.fns, params, batch["prompts"], batch["tokens"], batch["length"], transform)
            mask = completion_mask(batch["length"], batch["tokens"].shape[-1])
            count = mask.sum().astype(jnp.float32)
            whole = jnp.all((logp > jnp.log(0.5)) | ~mask, axis=-1)
            metrics = {"sft/likely_answers": (whole.sum(), jnp.float32(whole.size)),
                       "sft/tokens": (count, jnp.float32(whole.size))}
            return -logp.sum(), count, metrics

        self._step = make_train_step(
            loss, self._tx, name=config.name, schedule=make_schedule(config.optim, config.steps))
        self.jits = [self._step]

    def init(self, bundle: Bundle) -> Bundle:
        """Splits trained from frozen parameters and opens the data."""
        return start_stage(self.recipe, bundle, self._tx, seed=self._seed,
                           data_iterator=iterate(self._source))

    def step(self, bundle: Bundle, batch: Batch) -> tuple[Bundle, Any, None]:
        """One update."""
        arrays = {"prompts": batch.prompts, "tokens": batch.tokens, "length": batch.length}
        state, metrics = self._step(bundle.state, bundle.frozen, arrays)
        return bundle.replace(state=state), metrics, None

    def finish(self, bundle: Bundle) -> Bundle:
        """All parameters, nothing else."""
        return bundle.finished()
