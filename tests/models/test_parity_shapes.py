"""Equal to the reference for small models of every family and release and every kind of input.

Stored results always, the live model where torch is. Ours is computed once a shape: all kinds of
rows in one batch, padded on the right. The reference is asked row by row, and in batches padded on
either side.
"""

import dataclasses
import functools
import pathlib

import numpy as np
import pytest

from tests.models import parity_port as port
from tests.models.parity_cases import (BF16_SHAPES, END_ID, GRADIENT_SHAPES, GREEDY_SHAPES,
                                       MAX_TOKENS, SHAPES, kinds_of, make_answers, make_rows,
                                       random_tensor, some_tokens)
from tests.models.parity_errors import (GRADIENT_BAR, LOGITS_BAR, compared, leaf_errors,
                                        relative_error, rms_error, sketch, sketch_errors)
from tests.models.reference_cases import positions_of
from guardjax.models.releases import RELEASES

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "models"


@pytest.fixture(name="golden", scope="module")
def _golden():
    found = {}
    for name in ("parity.npz", "families.npz"):
        with np.load(GOLDEN / name) as stored:
            found |= stored
    return found


@functools.cache
def our_logits(shape, dtype="float32"):
    cfg = dataclasses.replace(SHAPES[shape], dtype=dtype)
    return port.row_logits(port.make_params(cfg), cfg, make_rows(cfg))


@functools.cache
def our_gradient(shape):
    cfg = SHAPES[shape]
    rows = make_rows(cfg)
    return port.gradient(port.make_params(cfg), cfg, rows, *make_answers(cfg, len(rows)))


@functools.cache
def our_answers(shape):
    cfg = SHAPES[shape]
    return port.greedy(port.make_params(cfg), cfg, make_rows(cfg), MAX_TOKENS, END_ID)


@functools.cache
def reference(shape):
    from tests.models import reference_model

    return reference_model.build(SHAPES[shape], random_tensor)


def some(logits, rows):
    return [one[some_tokens(row)] for one, row in zip(logits, rows)]


# Its gradient is compared in the slow suite: in the decoder it is that of Qwen2.5-VL.
SLOW_SHAPE = "Qwen2-VL 2B"


@pytest.mark.parametrize("size", RELEASES)
def test_a_small_shape_keeps_what_makes_the_release(size):
    small, release = SHAPES[size], RELEASES[size]
    text, vision = small.text, small.vision
    ratio = release["num_attention_heads"] // release["num_key_value_heads"]
    assert text.num_attention_heads // text.num_key_value_heads == ratio
    assert small.tie_word_embeddings == release["tie_word_embeddings"]
    assert [4 * n + 3 for n in vision.fullatt_block_indexes] == [7, 15, 23, 31]
    assert (4 * vision.depth, vision.patch_size, vision.window_size) == (32, 14, 112)
    section = release["rope_scaling"]["mrope_section"]
    assert [8 * n for n in text.mrope_section] == section


@pytest.mark.parametrize("shape", SHAPES)
def test_stored_logits(shape, golden):
    rows = make_rows(SHAPES[shape])
    for kind, ours in zip(kinds_of(SHAPES[shape]), some(our_logits(shape), rows)):
        assert relative_error(ours, golden[f"{shape}/{kind}/logits"]) <= LOGITS_BAR, kind


@pytest.mark.parametrize("shape", SHAPES)
def test_stored_positions(shape, golden):
    cfg = SHAPES[shape]
    for kind, row in zip(kinds_of(cfg), make_rows(cfg)):
        np.testing.assert_array_equal(positions_of(cfg, row)[0],
                                      golden[f"{shape}/{kind}/positions"], kind)


@pytest.mark.parametrize("shape", BF16_SHAPES)
def test_bf16_is_no_further_off_than_that_of_the_reference(shape, golden):
    exact = [golden[f"{shape}/{kind}/logits"] for kind in kinds_of(SHAPES[shape])]
    ours = some(our_logits(shape, "bfloat16"), make_rows(SHAPES[shape]))
    assert rms_error(ours, exact) <= golden[f"{shape}/bf16"]


@pytest.mark.parametrize("shape", [
    pytest.param(shape, marks=pytest.mark.slow) if shape == "LLaVA 1.5 7B" else shape
    for shape in GREEDY_SHAPES])
def test_stored_greedy_answers(shape, golden):
    stored = [golden[f"{shape}/{kind}/greedy"].tolist() for kind in kinds_of(SHAPES[shape])]
    assert our_answers(shape) == stored


def test_some_greedy_answers_end_early_and_some_never(golden):
    lengths = {len(answer) for name, answer in golden.items() if name.endswith("/greedy")}
    assert len(lengths) > 1 and max(lengths) == MAX_TOKENS


@pytest.mark.parametrize("shape", [
    pytest.param(shape, marks=pytest.mark.slow) if shape == SLOW_SHAPE else shape
    for shape in GRADIENT_SHAPES])
def test_stored_gradient(shape, golden):
    loss, leaves = our_gradient(shape)
    assert abs(loss - golden[f"{shape}/loss"]) <= LOGITS_BAR * abs(loss)
    errors = sketch_errors(sketch(leaves), golden[f"{shape}/gradient"])
    assert errors.max() <= GRADIENT_BAR, sorted(compared(leaves))[errors.argmax()]


def test_a_sketch_estimates_the_error_of_each_leaf():
    rng = np.random.default_rng(0)
    true = {name: rng.standard_normal((30, 40)) for name in "abc"}
    near = {name: leaf + 1e-3 * rng.standard_normal(leaf.shape) for name, leaf in true.items()}
    estimate = sketch_errors(sketch(near), sketch(true))
    exact = np.asarray(list(leaf_errors(near, true).values()))
    assert (estimate > 0.4 * exact).all() and (estimate < 2.5 * exact).all()


@pytest.mark.parametrize("shape", SHAPES)
def test_live_rows_alone_and_padded_on_either_side(shape, live):
    from tests.models import reference_model

    cfg, model = SHAPES[shape], reference(shape)
    rows = make_rows(cfg)
    alone = zip(*(reference_model.run(model, row) for row in rows))
    for logits, positions in (alone, reference_model.run_batch(model, rows, "right"),
                              reference_model.run_batch(model, rows, "left")):
        for kind, row, ours, theirs, ids in zip(kinds_of(cfg), rows, our_logits(shape), logits,
                                                positions):
            assert relative_error(ours, theirs) <= LOGITS_BAR, kind
            np.testing.assert_array_equal(positions_of(cfg, row)[0], ids, kind)


@pytest.mark.parametrize("shape", BF16_SHAPES)
def test_live_bf16(shape, live):
    import torch

    from tests.models import reference_model

    rows = make_rows(SHAPES[shape])
    exact, _ = reference_model.run_batch(reference(shape), rows)
    half = reference_model.build(SHAPES[shape], random_tensor, torch.bfloat16)
    theirs, _ = reference_model.run_batch(half, rows)
    assert rms_error(our_logits(shape, "bfloat16"), exact) <= rms_error(theirs, exact)


@pytest.mark.parametrize("shape", GREEDY_SHAPES)
def test_live_greedy_answers(shape, live):
    from tests.models import reference_model

    assert our_answers(shape) == reference_model.greedy(
        reference(shape), make_rows(SHAPES[shape]), MAX_TOKENS, END_ID)


@pytest.mark.parametrize("shape", GRADIENT_SHAPES)
def test_live_gradient(shape, live):
    from tests.models import reference_model

    rows = make_rows(SHAPES[shape])
    loss, leaves = our_gradient(shape)
    theirs, reference_leaves = reference_model.gradient(
        reference(shape), rows, *make_answers(SHAPES[shape], len(rows)))
    assert abs(loss - theirs) <= LOGITS_BAR * abs(theirs)
    errors = leaf_errors(leaves, reference_leaves)
    assert max(errors.values()) <= GRADIENT_BAR, max(errors, key=errors.get)
