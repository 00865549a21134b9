"""Layers as a loop over stacked parameters say what unrolled layers say, and so does remat."""

import dataclasses
import functools

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from guardjax import models
from guardjax.models import qwen2_5_vl as model
from guardjax.models.hf_names import leaf_shape, leaf_table, tensor_table
from guardjax.models.hf_weights import WeightsError, load_hf, save_hf
from guardjax.models.init import init_params, liken_queries_to_keys, param_shapes
from guardjax.rl.model_fns import bind
from guardjax.rl.sampling import SamplingParams, generate
from guardjax.rl.transform import make_transform
from guardjax.types import PromptBatch
from guardjax.models.releases import RELEASES
from tests.models.reference_cases import TIED, UNTIED, make_inputs, make_row
from tests.models.test_parity import relative_error

# Two groups of one window block and a full one; two decoder layers.
CFG = dataclasses.replace(
    UNTIED, text=dataclasses.replace(UNTIED.text, num_hidden_layers=2),
    vision=dataclasses.replace(UNTIED.vision, depth=4, fullatt_block_indexes=(1, 3)))
SCANNED = dataclasses.replace(CFG, scan_layers=True)
ROWS = [make_row(CFG, name) for name in ("odd_grid", "two_images")]


def unstacked(tree, cfg):
    """Path in the unrolled model -> leaf."""
    leaves = flax.traverse_util.flatten_dict(tree)
    plain = [spec.path for spec in tensor_table(dataclasses.replace(cfg, scan_layers=False))]
    return {path: leaves[spec.path][spec.layer] for path, spec in zip(plain, tensor_table(cfg))}


@pytest.fixture(scope="module", autouse=True)
def _quick(quick_compilation):
    """All programs here are small."""


@pytest.fixture(name="params", scope="module")
def make_params():
    return {cfg: init_params(cfg, jax.random.key(0)) for cfg in (CFG, SCANNED)}


def test_the_parameters_are_the_same_and_stacked(params):
    flat = flax.traverse_util.flatten_dict(params[CFG])
    stacked = unstacked(params[SCANNED], SCANNED)
    assert flat.keys() == stacked.keys()
    for path in flat:
        np.testing.assert_array_equal(flat[path], stacked[path])
    width = CFG.text.hidden_size
    assert params[SCANNED]["model"]["layers"]["self_attn"]["o_proj"]["kernel"].shape == (
        2, width, width)
    blocks = params[SCANNED]["visual"]["blocks"]
    assert blocks["window"]["norm1"]["scale"].shape[:2] == (2, 1)
    assert blocks["full"]["norm1"]["scale"].shape[:1] == (2,)
    likened = {cfg: liken_queries_to_keys(params[cfg], cfg) for cfg in params}
    for path, leaf in unstacked(likened[SCANNED], SCANNED).items():
        np.testing.assert_array_equal(leaf, flax.traverse_util.flatten_dict(likened[CFG])[path])


@pytest.mark.parametrize("name", RELEASES)
def test_the_table_places_every_tensor_of_the_releases(name):
    cfg = dataclasses.replace(models.ModelConfig.from_hf(RELEASES[name]), scan_layers=True)
    shapes = flax.traverse_util.flatten_dict(param_shapes(cfg))
    assert {path: leaf.shape for path, leaf in shapes.items()} == {
        path: leaf_shape(specs) for path, specs in leaf_table(cfg).items()}
    assert len(shapes) < 60 < len(tensor_table(cfg))


def features_of(cfg):
    _, vision = make_inputs(cfg, ROWS[1:])
    tower = {"visual": init_params(cfg, jax.random.key(1))["visual"]}
    return np.asarray(jax.jit(lambda p: model.encode_images(p, cfg, vision))(tower))


@pytest.mark.slow
def test_runs_of_window_blocks_go_through_in_order():
    cfg = deep(2)       # two groups of two window blocks and a full one
    scanned = dataclasses.replace(cfg, scan_layers=True)
    assert param_shapes(scanned)["visual"]["blocks"]["window"]["norm1"]["scale"].shape[:2] == (2, 2)
    assert relative_error(features_of(scanned), features_of(cfg)) <= 1e-5


def test_a_tower_without_a_pattern_stays_unrolled():
    cfg = dataclasses.replace(TIED, scan_layers=True)
    assert {"blocks_0", "blocks_2"} < set(param_shapes(cfg)["visual"])
    assert features_of(cfg).shape[-1] == cfg.text.hidden_size
    every = dataclasses.replace(cfg, vision=dataclasses.replace(
        cfg.vision, fullatt_block_indexes=(0, 1, 2)))
    assert set(param_shapes(every)["visual"]["blocks"]) == {"full"}
    assert features_of(every).shape == features_of(cfg).shape
    none = dataclasses.replace(cfg.vision, fullatt_block_indexes=())
    assert none.window_run is None


@functools.partial(jax.jit, static_argnums=1)
def loss_and_gradient(params, cfg, segment, vision):
    def loss(params):
        features = model.encode_images(params, cfg, vision)
        (hidden,), _ = model.forward(params, cfg, [segment], features)
        logits = model.unembed(params, cfg, hidden)
        picked = jnp.take_along_axis(jax.nn.log_softmax(logits), segment.tokens[..., None], -1)
        return -picked.sum(), logits

    return jax.value_and_grad(loss, has_aux=True)(params)


@pytest.mark.parametrize(("scan", "remat"), [
    (True, "full"), pytest.param(True, "none", marks=pytest.mark.slow),
    pytest.param(False, "dots", marks=pytest.mark.slow)])
def test_logits_and_gradients_are_those_of_the_unrolled_model(params, scan, remat):
    inputs = make_inputs(CFG, ROWS)
    (_, expected), slope = loss_and_gradient(params[CFG], CFG, *inputs)
    cfg = dataclasses.replace(SCANNED if scan else CFG, remat=remat)
    start = params[SCANNED if scan else CFG]
    (_, logits), found = loss_and_gradient(start, cfg, *inputs)
    assert relative_error(np.asarray(logits), np.asarray(expected)) <= 1e-5
    found = unstacked(found, cfg)
    for path, leaf in flax.traverse_util.flatten_dict(slope).items():
        assert relative_error(np.asarray(found[path]), np.asarray(leaf)) <= 1e-4, path


def test_generation_is_the_same_token_for_token(params):
    prompt, vision = make_inputs(CFG, ROWS)
    prompts = PromptBatch(prompt, prompt.positions.max(axis=(1, 2)) + 1, vision)
    sampling = SamplingParams(num_samples=3, max_tokens=6, end_id=1, pad_id=0)
    width = CFG.text.vocab_size

    def sample(cfg):
        run = jax.jit(lambda p, k: generate(bind(models, cfg), p, prompts, k, sampling,
                                            make_transform(width)))
        return run(params[cfg], jax.random.key(5))

    plain, scanned = sample(CFG), sample(SCANNED)
    np.testing.assert_array_equal(scanned.tokens, plain.tokens)
    np.testing.assert_array_equal(scanned.length, plain.length)
    np.testing.assert_allclose(scanned.logp, plain.logp, atol=2e-5)


@functools.partial(jax.jit, static_argnums=1)
def run(params, cfg, segments, vision, cache=None):
    features = None if vision is None else model.encode_images(params, cfg, vision)
    return model.forward(params, cfg, segments, features, cache)


def test_a_cached_prompt_and_pieces_of_two_tokens_equal_one_pass(params):
    prompt, vision = make_inputs(CFG, ROWS)
    cut = prompt.tokens.shape[1] - 4
    pieces = [jax.tree.map(lambda x: x[:, start:stop], prompt)
              for start, stop in ((0, cut), (cut, cut + 2), (cut + 2, cut + 4))]
    pieces[1:] = [piece.replace(feature_index=None) for piece in pieces[1:]]
    (expected,), _ = run(params[CFG], CFG, (prompt,), vision)
    (_,), cache = run(params[SCANNED], SCANNED, pieces[:1], vision)
    cache = models.open_buffer(SCANNED, cache, (2,), 7)
    for number, piece in enumerate(pieces[1:]):
        (hidden,), cache = run(params[SCANNED], SCANNED, (piece,), None, cache)
        at = cut + 2 * number
        np.testing.assert_allclose(hidden, expected[:, at:at + 2], atol=2e-5)
    assert int(cache.open.length) == 4 and cache.open.keys.shape[0] == 2


def test_files_do_not_depend_on_the_layout(params, tmp_path):
    for cfg in params:
        save_hf(params[cfg], cfg, tmp_path / str(cfg.scan_layers), max_shard_bytes=60_000)
    names = sorted(file.name for file in (tmp_path / "True").iterdir())
    assert len(names) > 4
    for name in names:
        assert (tmp_path / "True" / name).read_bytes() == (tmp_path / "False" / name).read_bytes()
    for cfg in params:
        _, loaded = load_hf(tmp_path / "False", cfg)
        jax.tree.map(np.testing.assert_array_equal, loaded, params[cfg])
    with pytest.raises(WeightsError, match="parameters do not fit the config"):
        save_hf(params[CFG], SCANNED, tmp_path / "other")


def test_stacks_are_placed_on_any_sharding(params, tmp_path):
    save_hf(params[CFG], CFG, tmp_path / "model")
    mesh = jax.make_mesh((1,), ("x",), axis_types=(AxisType.Auto,))
    _, loaded = load_hf(tmp_path / "model", SCANNED, dtype="bfloat16", shardings=jax.tree.map(
        lambda leaf: NamedSharding(mesh, PartitionSpec(*(None,) * (leaf.ndim - 1), "x")),
        params[SCANNED]))
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b.astype(jnp.bfloat16)), loaded,
                 params[SCANNED])


def deep(layers, **changes):
    cfg = dataclasses.replace(CFG, text=dataclasses.replace(CFG.text, num_hidden_layers=layers),
                              vision=dataclasses.replace(
                                  CFG.vision, depth=3 * layers,
                                  fullatt_block_indexes=tuple(range(2, 3 * layers, 3))))
    return dataclasses.replace(cfg, **changes)


def program(cfg, tower):
    """The gradient through the decoder or through the vision tower, not compiled yet."""
    segment, vision = make_inputs(CFG, ROWS)

    def loss(params):
        if tower == "visual":
            return jnp.square(model.encode_images(params, cfg, vision)).mean()
        (hidden,), _ = model.forward(params, cfg, [segment.replace(feature_index=None)])
        return jnp.square(hidden).mean()

    return jax.jit(jax.grad(loss)).lower(param_shapes(cfg))


@pytest.mark.parametrize("tower", ["model", pytest.param("visual", marks=pytest.mark.slow)])
def test_the_program_no_longer_grows_with_the_layers(tower):
    def size(layers, scan):
        return program(deep(layers, scan_layers=scan), tower).as_text().count("\n")

    assert size(8, True) == size(3, True)       # lines
    assert size(4, False) > 1.6 * size(2, False)


@pytest.mark.slow
@pytest.mark.parametrize(("tower", "kinds"), [
    ("model", ("full", "dots", "none")), ("visual", ("full", "none"))])
def test_remat_lowers_the_memory_of_the_gradient(tower, kinds):
    def temp(remat):
        compiled = program(deep(4, scan_layers=True, remat=remat), tower).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    sizes = [temp(remat) for remat in kinds]
    assert all(less < 0.75 * more for less, more in zip(sizes, sizes[1:])), sizes


def test_an_unknown_policy_is_refused():
    with pytest.raises(ValueError, match="remat is 'some'; it must be one of none, dots, full"):
        dataclasses.replace(CFG, remat="some")
