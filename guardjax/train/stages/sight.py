"""Stage `sight`: teach the vision tower to name what each image token shows.

A language model's loss on captions reaches the tower only through the language model, and a tower
trained from nothing needs hours that way. Here every image token is asked directly: its feature,
multiplied with the (tied) word embeddings, must name the object that covers it, or the place where
none does. No language model runs, and afterwards an image token stands close to the word it means,
so that what is later learned about words holds for pictures. Our instantiation; no source.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array


def naming_loss(
    features: Array, embedding: Array, word_ids: Array, weights: Array
) -> tuple[Array, Array, dict[str, tuple[Array, Array]]]:
    """Cross-entropy of naming every image token.

    Args:
      features: [B, U, D] float32, output of the merger.
      embedding: [V, D] float32, word embeddings (tied head).
      word_ids: [B, U] int32, the word each token should mean.
      weights: [B, U] float32; 0 ignores a token.

    Returns:
      (loss summed over tokens, sum of weights, metrics as (sum, count)).
    """
    logits = jnp.einsum("bud,vd->buv", features, embedding)
    logp = jax.nn.log_softmax(logits)
    picked = jnp.take_along_axis(logp, word_ids[..., None], axis=-1)[..., 0]
    right = (logits.argmax(-1) == word_ids).astype(jnp.float32)
    is_object = (weights >= 1).astype(jnp.float32)
    metrics = {
        "sight/object_accuracy": ((right * is_object).sum(), is_object.sum()),
        "sight/token_accuracy": ((right * (weights > 0)).sum(), (weights > 0).sum()),
    }
    return -(picked * weights).sum(), weights.sum(), metrics


def naming_targets(
    covers: np.ndarray, place_ids: np.ndarray, *, empty_weight: float
) -> tuple[np.ndarray, np.ndarray]:
    """Targets of `naming_loss`.

    Args:
      covers: [B, U] int32 word id of the covering object, -1 where none does.
      place_ids: [B] int32 word id of the scene's place.
      empty_weight: weight of tokens without an object (they name the place), below 1.

    Returns:
      (word_ids [B, U] int32, weights [B, U] float32).
    """
    empty = covers < 0
    word_ids = np.where(empty, place_ids[:, None], covers).astype(np.int32)
    weights = np.where(empty, empty_weight, 1.0).astype(np.float32)
    return word_ids, weights
