"""A step of decoding writes into its buffers and reads the prompt's keys as they lie."""

import re

import jax
import jax.numpy as jnp
import pytest

from guardjax.models import qwen2_5_vl as model
from guardjax.models.cache import KVCache, open_buffer
from guardjax.models.init import param_shapes
from guardjax.types import Segment
from tests.models.reference_cases import SMALLEST

PROMPT, ROOM = 29, 37


def abstract_segment(*shape: int) -> Segment:
    return Segment(jax.ShapeDtypeStruct(shape, jnp.int32),
                   jax.ShapeDtypeStruct((*shape, 3), jnp.int32),
                   jax.ShapeDtypeStruct(shape, jnp.bool_))


@pytest.mark.parametrize("lead", [(1, 1), (3, 1), (1, 3), (2, 3)])
def test_a_step_copies_neither_keys_nor_values(lead):
    def opened(params, prompt):
        _, cache = model.forward(params, SMALLEST, [prompt], None, KVCache())
        return open_buffer(SMALLEST, cache, lead, ROOM)

    def step(params, segment, cache):
        (hidden,), cache = model.forward(params, SMALLEST, [segment], None, cache)
        return model.unembed(params, SMALLEST, hidden), cache

    params = param_shapes(SMALLEST)
    cache = jax.eval_shape(opened, params, abstract_segment(lead[0], PROMPT))
    program = jax.jit(step, donate_argnums=2).lower(params, abstract_segment(*lead, 1), cache)
    copied = re.findall(r"= \w+\[([\d,]*)\]\S* copy\(", program.compile().as_text())
    # Scores are moved, keys and values are not: those have the axis of a head too.
    size = str(SMALLEST.text.head_dim)
    found = [shape for shape in copied if size in shape.split(",")
             and {str(PROMPT), str(ROOM)} & set(shape.split(","))]
    assert not found
