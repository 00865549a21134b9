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
from guardjax.train.config import StageConfig
from guardjax.train.stages.model import StageModel
from guardjax.train.stages.trained import TrainedStage
from guardjax.train.state import Bundle
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


class SightStage(TrainedStage):
    """Trains `visual` alone; the words stay as they are."""

    def __init__(self, config: StageConfig, model: StageModel, source: SightSource, seed: int):
        others = ("model",) if model.cfg.tie_word_embeddings else ("model", "lm_head")
        super().__init__(config, source, seed, freeze=others)

        def loss(trained: Any, frozen: Any, batch: SightBatch, key: jax.Array):
            del key
            params = self.recipe.merge(trained, frozen)
            features = model.fns.encode(params, batch["vision"])
            words = params["model"]["embed_tokens"]["embedding"]
            return naming_loss(features, words, batch["word_ids"], batch["weights"])

        self.jits = [self._make_step(loss, config.name)]

    def step(self, bundle: Bundle, batch: SightBatch) -> tuple[Bundle, Any, None]:
        """One update."""
        arrays = {"vision": batch.vision, "word_ids": batch.word_ids, "weights": batch.weights}
        return self._update(bundle, arrays)
