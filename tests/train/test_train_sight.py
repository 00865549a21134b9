"""Stage sight: image tokens name what they show, and may be pulled to their words."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from guardjax.cli import compose
from guardjax.data.batching import load_batcher
from guardjax.data.sight import SightSource
from guardjax.train.stages.sight import LOGIT_SCALE, naming_loss


def drawn(seed=0):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(2, 4, 6)), rng.normal(size=(9, 6)), rng.integers(9, size=(2, 4)),
            np.array([[1, 0.3, 0, 1], [0.3, 0.3, 1, 0]]), rng.integers(9, size=(2, 4)))


def by_hand(features, embedding, words, weights, lights, closeness):
    """Float64, token by token."""
    total = 0.0
    for b in range(2):
        for u in range(4):
            logits = LOGIT_SCALE * embedding @ features[b, u]
            name = np.log(np.exp(logits - logits.max()).sum()) + logits.max() - logits[words[b, u]]
            target = (embedding[words[b, u]] + embedding[lights[b, u]]) / 2
            apart = ((features[b, u] - target) ** 2).sum()
            total += weights[b, u] * (name + closeness * apart)
    return total


def test_loss_is_naming_plus_squared_distance():
    parts = drawn()
    for closeness in (0.0, 0.7):
        got, count, metrics = naming_loss(*(jnp.asarray(part) for part in parts), closeness)
        np.testing.assert_allclose(got, by_hand(*parts, closeness), rtol=1e-5)
        np.testing.assert_allclose(count, parts[3].sum(), rtol=1e-6)
        assert metrics["sight/token_accuracy"][1] == 6 and metrics["sight/object_accuracy"][1] == 3


def test_only_closeness_makes_a_feature_its_word():
    """Naming is content with direction: it lengthens features for ever."""
    _, embedding, words, _, lights = drawn(1)
    embedding, weights = embedding / np.linalg.norm(embedding, axis=1)[:, None], np.ones((2, 4))
    lights = words
    reached = {}
    for closeness in (0.0, 1.0):
        features = jnp.zeros((2, 4, 6))
        grad = jax.jit(jax.grad(lambda f: naming_loss(
            f, embedding, words, weights, lights, closeness)[0]))
        for _ in range(3000):
            features = features - 0.02 * grad(features)
        reached[closeness] = np.linalg.norm(features - embedding[words], axis=-1).max()
    assert reached[1.0] < 0.15 < 0.3 < reached[0.0]


def test_background_has_a_place_and_a_light_and_objects_their_name():
    batcher = load_batcher(compose.model_dir("base"))
    batch = SightSource(batcher, batch=4, num_batches=1, seed=0)[0]
    decode = batcher.tokenizer.decode
    is_object = batch.weights == 1
    assert (batch.light_ids == batch.word_ids)[is_object].all()
    assert {decode([i]).strip() for i in batch.light_ids[~is_object]} <= {"bright", "dark"}
    assert not {decode([i]).strip() for i in batch.word_ids[~is_object]} & {"bright", "dark"}
