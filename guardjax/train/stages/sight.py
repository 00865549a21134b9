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
from guardjax.models.config import ModelConfig
from guardjax.train.config import StageConfig
from guardjax.train.stages.model import StageModel
from guardjax.train.stages.trained import TrainedStage
from guardjax.train.state import Bundle
from guardjax.types import Array

# Features end up about this many times shorter than the logits alone would make them, so that a
# picture is not much louder than a word in the residual stream.
LOGIT_SCALE = 8.0


def naming_loss(
    features: Array, embedding: Array, word_ids: Array, weights: Array,
    light_ids: Array, closeness: float = 0.0
) -> tuple[Array, Array, dict[str, tuple[Array, Array]]]:
    """Cross-entropy of naming every image token, and its squared distance to the word.

    Naming asks only which word is nearest in direction: a feature may be six times as long as the
    word and mostly something else, and a reader of words cannot read it. `closeness` makes it the
    word.

    Args:
      features: [B, U, D] float32, output of the merger.
      embedding: [V, D] float32, word embeddings (tied head).
      word_ids: [B, U] int32, the word each token should mean.
      weights: [B, U] float32; 0 ignores a token, 1 is a token that shows an object.
      light_ids: [B, U] int32, the word for the light where no object is, else `word_ids`.
      closeness: weight of `|feature - word|^2`, where the word of the background is halfway
        between its place and its light.

    Returns:
      (loss summed over tokens, sum of weights, metrics as (sum, count)).
    """
    logits = LOGIT_SCALE * jnp.einsum("bud,vd->buv", features, embedding)
    logp = jax.nn.log_softmax(logits)
    picked = jnp.take_along_axis(logp, word_ids[..., None], axis=-1)[..., 0]
    words = (embedding[word_ids] + embedding[light_ids]) / 2
    apart = jnp.square(features - words).sum(-1)
    right = (logits.argmax(-1) == word_ids).astype(jnp.float32)
    is_object = (weights >= 1).astype(jnp.float32)
    counted = (weights > 0).astype(jnp.float32)
    metrics = {
        "sight/object_accuracy": ((right * is_object).sum(), is_object.sum()),
        "sight/token_accuracy": ((right * counted).sum(), counted.sum()),
        "sight/distance": ((jnp.sqrt(apart) * counted).sum(), counted.sum()),
    }
    return ((closeness * apart - picked) * weights).sum(), weights.sum(), metrics


def all_but_tower(cfg: ModelConfig) -> tuple[str, ...]:
    """The groups of parameters that the stage freezes."""
    return ("model",) if cfg.tie_word_embeddings else ("model", "lm_head")


class SightStage(TrainedStage):
    """Trains `visual` alone; the words stay as they are."""

    def __init__(self, config: StageConfig, model: StageModel, source: SightSource, seed: int):
        super().__init__(config, source, seed, freeze=all_but_tower(model.cfg),
                         placement=model.placement)

        def loss(trained: Any, frozen: Any, batch: SightBatch, key: jax.Array):
            del key
            params = self.recipe.merge(trained, frozen)
            features = model.fns.encode(params, batch["vision"])
            return naming_loss(
                features, params["model"]["embed_tokens"]["embedding"], batch["word_ids"],
                batch["weights"], batch["light_ids"], config.closeness)

        self.jits = [self._make_step(loss, config.name)]

    def step(self, bundle: Bundle, batch: SightBatch) -> tuple[Bundle, Any, None]:
        """One update."""
        arrays = {"vision": batch.vision, "word_ids": batch.word_ids, "weights": batch.weights,
                  "light_ids": batch.light_ids}
        return self._update(bundle, arrays)
