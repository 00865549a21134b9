"""Stage `sight`: teach the vision tower to name what each image token shows.

A language model's loss on captions reaches the tower only through the language model, and a tower
trained from nothing needs hours that way. Here every image token is asked directly: its feature,
multiplied with the (tied) word embeddings, must name the object that covers it, or the place where
none does. No language model runs, and afterwards an image token stands close to the word it means,
so that what is later learned about words has a chance to hold for pictures. Our instantiation; no
source.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from guardjax.data.sight import SightBatch, SightSource
from guardjax.data.sources import iterate
from guardjax.train.config import StageConfig
from guardjax.train.optim import make_optimizer, make_schedule
from guardjax.train.recipe import make_recipe, start_stage
from guardjax.train.stages.model import StageModel
from guardjax.train.state import Bundle
from guardjax.train.steps import make_train_step
from guardjax.types import Array

# Features end up about this many times shorter than the logits alone would make them, so that a
# picture is not much louder than a word in the residual stream.
LOGIT_SCALE = 8.0


def naming_loss(
    features: Array, embedding: Array, word_ids: Array, weights: Array
) -> tuple[Array, Array, dict[str, tuple[Array, Array]]]:
    """Cross-entropy of naming every image token.

    Args:
      features: [B, U, D] float32, output of the merger.
      embedding: [V, D] float32, word embeddings (tied head).
      word_ids: [B, U] int32, the word each token should mean.
      weights: [B, U] float32; 0 ignores a token, 1 is a token that shows an object.

    Returns:
      (loss summed over tokens, sum of weights, metrics as (sum, count)).
    """
    logits = LOGIT_SCALE * jnp.einsum("bud,vd->buv", features, embedding)
    logp = jax.nn.log_softmax(logits)
    picked = jnp.take_along_axis(logp, word_ids[..., None], axis=-1)[..., 0]
    right = (logits.argmax(-1) == word_ids).astype(jnp.float32)
    is_object = (weights >= 1).astype(jnp.float32)
    counted = (weights > 0).astype(jnp.float32)
    metrics = {
        "sight/object_accuracy": ((right * is_object).sum(), is_object.sum()),
        "sight/token_accuracy": ((right * counted).sum(), counted.sum()),
    }
    return -(picked * weights).sum(), weights.sum(), metrics


class SightStage:
    """Trains `visual` alone; the words stay as they are."""

    def __init__(self, config: StageConfig, model: StageModel, source: SightSource, seed: int):
        self.name, self.num_steps = config.name, config.steps
        self._source, self._seed = source, seed
        others = ("model",) if model.cfg.tie_word_embeddings else ("model", "lm_head")
        self.recipe = make_recipe(others, config.lora)
        self._tx = make_optimizer(config.optim, config.steps)

        def loss(trained: Any, frozen: Any, batch: SightBatch, key: jax.Array):
            del key
            params = self.recipe.merge(trained, frozen)
            features = model.fns.encode(params, batch["vision"])
            words = params["model"]["embed_tokens"]["embedding"]
            return naming_loss(features, words, batch["word_ids"], batch["weights"])

        self._step = make_train_step(
            loss, self._tx, name=config.name, schedule=make_schedule(config.optim, config.steps))
        self.jits = [self._step]

    def init(self, bundle: Bundle) -> Bundle:
        """Everything but the tower is frozen."""
        return start_stage(self.recipe, bundle, self._tx, seed=self._seed,
                           data_iterator=iterate(self._source))

    def step(self, bundle: Bundle, batch: SightBatch) -> tuple[Bundle, Any, None]:
        """One update."""
        arrays = {"vision": batch.vision, "word_ids": batch.word_ids, "weights": batch.weights}
        state, metrics = self._step(bundle.state, bundle.frozen, arrays)
        return bundle.replace(state=state), metrics, None

    def finish(self, bundle: Bundle) -> Bundle:
        """All parameters, nothing else."""
        return bundle.finished()
