"""Starting values of a tiny model."""

from __future__ import annotations

import jax
import numpy as np
import pytest

import guardjax.models as models
from guardjax.models.tiny import tiny_config


@pytest.fixture(scope="module")
def cfg():
    return tiny_config(128)


@pytest.fixture(scope="module")
def params(cfg):
    return models.init_params(cfg, jax.random.key(0))


def test_queries_become_the_keys_of_their_group(cfg, params) -> None:
    whole = models.liken_queries_to_keys(params, cfg, share=1.0)
    attention = whole["model"]["layers_2"]["self_attn"]
    ratio = cfg.text.num_attention_heads // cfg.text.num_key_value_heads
    width = cfg.text.hidden_size // cfg.text.num_attention_heads
    queries = np.asarray(attention["q_proj"]["kernel"]).reshape(cfg.text.hidden_size, -1, width)
    keys = np.asarray(attention["k_proj"]["kernel"]).reshape(cfg.text.hidden_size, -1, width)
    for head in range(cfg.text.num_attention_heads):
        np.testing.assert_array_equal(queries[:, head], keys[:, head // ratio])


def test_likening_keeps_the_variance_and_touches_nothing_else(cfg, params) -> None:
    before = jax.tree_util.tree_leaves_with_path(jax.tree.map(np.asarray, params))
    likened = models.liken_queries_to_keys(params, cfg)
    after = jax.tree.leaves(jax.tree.map(np.asarray, likened))
    for (path, old), new in zip(before, after, strict=True):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if name.startswith("model") and name.endswith("q_proj/kernel"):
            assert np.std(new) == pytest.approx(np.std(old), rel=0.05)
            assert not np.allclose(new, old)
        else:
            np.testing.assert_array_equal(new, old)
