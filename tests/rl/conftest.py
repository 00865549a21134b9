"""A toy language model with pictures, segments and a cache, so that `rl` is tested on its own."""

from __future__ import annotations

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from guardjax.rl.model_fns import ModelFns
from guardjax.types import Head, PromptBatch, Segment, VisionInputs

VOCAB, WIDTH = 13, 16
END, PAD, IMAGE = 1, 0, 2


def init_params(seed: int = 0) -> dict[str, jax.Array]:
    """One attention head over an embedding; sharp enough that contexts differ."""
    rng = np.random.default_rng(seed)
    normal = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
    return {
        "embed": normal(VOCAB, WIDTH),
        "query": normal(WIDTH, WIDTH) / 4,
        "key": normal(WIDTH, WIDTH) / 4,
        "value": normal(WIDTH, WIDTH) / 4,
        "patch": normal(4, WIDTH) / 2,
        "head": normal(WIDTH, VOCAB) / 3,
    }


def encode(params, vision):
    return vision.patches @ params["patch"]


def forward(params, segments, features, cache):
    """The cache is {"closed": ((k, v, mask), ...), "open": None or (k, v, mask, length)}."""
    cache = {"closed": (), "open": None} if cache is None else cache
    closed, outputs = list(cache["closed"]), []
    for segment in segments:
        x = _embed(params, segment, features)
        k, v = x @ params["key"], x @ params["value"]
        num = segment.tokens.shape[-1]
        if cache["open"] is None:
            own = (k, v, segment.mask[..., None, :] & jnp.tril(jnp.ones((num, num), bool)))
            outputs.append(_attend(params, x, closed, own))
            closed.append((k, v, segment.mask))
            continue
        keys, values, mask, length = cache["open"]
        put = lambda buffer, new, axis: jax.lax.dynamic_update_slice_in_dim(
            buffer, new, length, axis=axis
        )
        if length.ndim:     # slots, each with a place of its own
            rows = jnp.arange(length.shape[0])
            put = lambda buffer, new, axis: buffer.at[rows, length].set(new[:, 0])
        keys, values = put(keys, k, -2), put(values, v, -2)
        mask = put(mask, segment.mask, -1)
        outputs.append(_attend(params, x, closed, (keys, values, mask[..., None, :])))
        cache = {"closed": cache["closed"], "open": (keys, values, mask, length + num)}
    return tuple(outputs), {"closed": tuple(closed), "open": cache["open"]}


def _embed(params, segment, features):
    x = params["embed"][segment.tokens]
    if segment.feature_index is not None and features is not None:
        rows = jnp.maximum(segment.feature_index, 0)
        seen = jnp.take_along_axis(features, rows[..., None], axis=1)
        x = jnp.where((segment.feature_index >= 0)[..., None], seen, x)
    return x + jnp.sin(segment.positions.sum(-1, keepdims=True) * jnp.arange(1, WIDTH + 1) / 9.0)


def _attend(params, x, closed, own):
    """Joint softmax over shared parts [B, S, D] and the segment's own keys."""
    q = x @ params["query"]
    grouped = x.ndim == 4
    scores, values = [], []
    for k, v, mask in closed:
        spec = "bgtd,bsd->bgts" if grouped else "btd,bsd->bts"
        mask = mask[:, None, None] if grouped else mask[:, None]
        scores.append(jnp.where(mask, jnp.einsum(spec, q, k), -1e30))
        values.append(("bgts,bsd->bgtd" if grouped else "bts,bsd->btd", v))
    k, v, mask = own
    scores.append(jnp.where(mask, jnp.einsum("...td,...sd->...ts", q, k), -1e30))
    values.append(("...ts,...sd->...td", v))
    weights = jax.nn.softmax(jnp.concatenate(scores, -1), axis=-1)
    out, start = x, 0
    for score, (spec, v) in zip(scores, values):
        out = out + 2 * jnp.einsum(spec, weights[..., start : start + score.shape[-1]], v)
        start += score.shape[-1]
    return jnp.tanh(out)


def unembed(params, hidden):
    return 3 * hidden @ params["head"]


def head(params):
    return Head(3 * params["head"], vocab_axis=1, dtype="float32")


def open_buffer(cache, lead, max_tokens):
    assert cache["open"] is None
    blank = jnp.zeros((*lead, max_tokens, WIDTH))
    mask = jnp.zeros((*lead, max_tokens), bool)
    return {"closed": cache["closed"], "open": (blank, blank, mask, jnp.int32(0))}


def open_slots(cache, rows, max_tokens):
    slots = open_buffer(cache, rows.shape, max_tokens)
    keys, values, mask, _ = slots["open"]
    slots = slots | {"open": (keys, values, mask, jnp.zeros(rows.shape, jnp.int32))}
    return refill_slots(slots, cache, rows, jnp.ones(rows.shape, bool))


def refill_slots(slots, cache, rows, fresh):
    keys, values, mask, length = slots["open"]
    return {
        "closed": jax.tree.map(lambda x: x[rows], cache["closed"]),
        "open": (keys, values, mask & ~fresh[:, None], jnp.where(fresh, 0, length)),
    }


def make_prompts(lengths=(5, 3, 6), width=None, seed=1, vision=False) -> PromptBatch:
    """Random prompts, padded on the right to `width`; the same words whatever the width."""
    width = max(lengths) if width is None else width
    batch = len(lengths)
    rng = np.random.default_rng(seed)
    words = rng.integers(3, VOCAB, (batch, 64)).astype(np.int32)[:, :width]
    mask = np.arange(width) < np.asarray(lengths)[:, None]
    positions = np.broadcast_to(np.arange(width, dtype=np.int32)[:, None], (batch, width, 3))
    index, inputs = None, None
    if vision:
        words[:, :2] = IMAGE
        index = np.where(np.arange(width) < 2, np.arange(width), -1).astype(np.int32)
        index = np.broadcast_to(index, (batch, width))
        inputs = VisionInputs(
            patches=rng.normal(size=(batch, 2, 4)).astype(np.float32),
            hw=np.zeros((batch, 2, 2), np.int32),
            frame=np.zeros((batch, 2), np.int32),
        )
    segment = Segment(
        tokens=np.where(mask, words, PAD), positions=positions, mask=mask, feature_index=index
    )
    # Not the length: an M-RoPE prompt with a picture ends at a smaller position than its length.
    next_pos = np.asarray(lengths, np.int32) - 1
    return jax.tree.map(
        jnp.asarray, PromptBatch(prompt=segment, next_pos=next_pos, vision=inputs)
    )


@pytest.fixture(scope="package", autouse=True)
def quick_compilation():
    """Compile fast and run slowly: these programs are small and run once."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="session")
def toy() -> types.SimpleNamespace:
    return types.SimpleNamespace(
        fns=ModelFns(encode, forward, unembed, open_buffer, head, open_slots, refill_slots),
        params=init_params(),
        init_params=init_params,
        make_prompts=make_prompts,
        vocab=VOCAB,
        width=WIDTH,
        end=END,
        pad=PAD,
        image=IMAGE,
    )
