"""Adapters: what they add up to, what they leave alone, and how stages train them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractMesh, AxisType, PartitionSpec

from guardjax.models.init import param_shapes
from guardjax.models.tiny import tiny_config
from guardjax.train.compilation import CompilationCounter
from guardjax.train.config import ConfigError, LoraConfig, OptimConfig, resolve
from guardjax.train.lora import (apply_adapters, attach_adapters, init_adapters,
                                 target_kernels)
from guardjax.train.optim import make_optimizer
from guardjax.train.recipe import make_recipe
from guardjax.train.sharding import AXES, tree_shardings
from guardjax.train.stages.exact import ExactStage
from guardjax.train.stages.sft import SFTStage
from guardjax.train.stages.sight import SightStage
from guardjax.train.state import Bundle, init_state

LORA = LoraConfig(rank=3, alpha=6.0)
ANY = LoraConfig(rank=2, alpha=3.0, targets=("proj",))


def same(one, other):
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(one), jax.device_get(other))


def layer(rng, *shape):
    return {"layer": {"proj": {"kernel": jnp.asarray(rng.normal(size=shape), jnp.float32)}}}


def factors(rng, *shapes):
    a, b = (jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes)
    return {"layer": {"proj": {"lora_a": a, "lora_b": b}}}


def test_default_targets_are_the_decoders_projections_and_their_number_follows():
    cfg = tiny_config()
    adapters = init_adapters(param_shapes(cfg), LORA, jax.random.key(0))
    text = cfg.text
    width, kv = text.hidden_size, text.num_key_value_heads * text.head_dim
    attention = [(width, width), (width, kv), (width, kv), (width, width)]
    mlp = [(width, text.intermediate_size)] * 2 + [(text.intermediate_size, width)]
    formula = text.num_hidden_layers * sum(LORA.rank * (i + o) for i, o in attention + mlp)
    assert sum(leaf.size for leaf in jax.tree.leaves(adapters)) == formula
    assert set(adapters) == {"model"}
    assert {leaf.dtype for leaf in jax.tree.leaves(adapters)} == {np.dtype(np.float32)}


def test_starting_values_depend_on_their_own_path_alone():
    params = {"one": layer(np.random.default_rng(0), 512, 16),
              "two": layer(np.random.default_rng(1), 512, 16)}
    key = jax.random.key(7)
    both = init_adapters(params, ANY, key)
    alone = init_adapters(params, dataclasses.replace(ANY, targets=("one/.*",)), key)
    same(alone["one"], both["one"])
    first, second = (both[name]["layer"]["proj"]["lora_a"] for name in ("one", "two"))
    assert "two" not in alone and (first != second).all()
    assert float(first.std()) == pytest.approx(512**-0.5, rel=0.1)
    assert not both["two"]["layer"]["proj"]["lora_b"].any()


@pytest.mark.parametrize("shape", [(5, 4), (3, 5, 4)])
def test_the_sum_is_that_of_float64_numpy(shape):
    rng = np.random.default_rng(0)
    stack, (height, width) = shape[:-2], shape[-2:]
    params = layer(rng, *shape) | {"norm": {"scale": jnp.ones(4)}}
    adapters = factors(rng, (*stack, height, 2), (*stack, 2, width))
    assert jax.tree.map(jnp.shape, adapters) == jax.tree.map(
        jnp.shape, init_adapters(params, ANY, jax.random.key(0)))
    whole = jax.jit(lambda p, a: apply_adapters(p, a, ANY))(params, adapters)
    wide = jax.tree.map(lambda x: np.asarray(x, np.float64), adapters)["layer"]["proj"]
    expected = np.asarray(params["layer"]["proj"]["kernel"], np.float64) + 1.5 * (
        wide["lora_a"] @ wide["lora_b"])
    np.testing.assert_allclose(whole["layer"]["proj"]["kernel"], expected, rtol=1e-5, atol=1e-6)
    assert jax.tree.structure(whole) == jax.tree.structure(params)


def test_at_full_rank_they_reach_every_change_of_the_weights():
    rng = np.random.default_rng(0)
    params, wanted = layer(rng, 6, 4), rng.normal(size=(6, 4))
    config = dataclasses.replace(ANY, rank=4, alpha=2.0)
    change = wanted - np.asarray(params["layer"]["proj"]["kernel"], np.float64)
    left, values, right = np.linalg.svd(change, full_matrices=False)
    adapters = {"layer": {"proj": {"lora_a": jnp.asarray(left * values * 2, jnp.float32),
                                   "lora_b": jnp.asarray(right, jnp.float32)}}}
    reached = apply_adapters(params, adapters, config)["layer"]["proj"]["kernel"]
    np.testing.assert_allclose(reached, wanted, atol=1e-5)


def test_gradients_are_those_of_float64_numpy():
    rng = np.random.default_rng(0)
    params, adapters = layer(rng, 5, 4), factors(rng, (5, 2), (2, 4))
    slope = rng.normal(size=(5, 4))             # of a loss that is linear in the kernel

    def loss(adapters):
        kernel = apply_adapters(params, adapters, ANY)["layer"]["proj"]["kernel"]
        return (kernel * slope).sum()

    found = jax.grad(loss)(adapters)["layer"]["proj"]
    a, b = (np.asarray(adapters["layer"]["proj"][n], np.float64) for n in ("lora_a", "lora_b"))
    np.testing.assert_allclose(found["lora_a"], 1.5 * slope @ b.T, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found["lora_b"], 1.5 * a.T @ slope, rtol=1e-4, atol=1e-5)


def test_half_precision_weights_are_summed_in_float32_and_stay_what_they_are():
    rng = np.random.default_rng(0)
    wide, adapters = layer(rng, 8, 8), factors(rng, (8, 2), (2, 8))
    narrow = jax.tree.map(lambda x: x.astype(jnp.bfloat16), wide)
    found = apply_adapters(narrow, adapters, ANY)["layer"]["proj"]["kernel"]
    exact = apply_adapters(jax.tree.map(lambda x: x.astype(jnp.float32), narrow), adapters, ANY)
    assert found.dtype == jnp.bfloat16
    np.testing.assert_array_equal(found, exact["layer"]["proj"]["kernel"].astype(jnp.bfloat16))


def test_what_does_not_fit_is_explained():
    shapes = param_shapes(tiny_config())

    def check(freeze=(), **changes):
        make_recipe(freeze, dataclasses.replace(LORA, **changes)).check(shapes)

    check()
    with pytest.raises(ValueError, match=r"in lora\.targets 'q_porj'\. Did you mean 'q_proj'"):
        check(targets=("q_porj",))
    with pytest.raises(ValueError, match=r"lora\.targets 'visual/\.\*'.*outside of what is frozen"):
        check(("visual",), targets=("visual/.*",))
    with pytest.raises(ValueError, match=r"rank=65 is more than .*self_attn/k_proj, 128 x 64, can "
                                         r"use; set it to 64 or less"):
        check(rank=65)
    with pytest.raises(ValueError, match="'visul'"):
        check(("visul",))
    assert len(target_kernels(shapes, dataclasses.replace(LORA, targets=("q_proj",)))) == 4
    adapters = factors(np.random.default_rng(0), (4, 2), (2, 4))
    for put in (apply_adapters, attach_adapters):
        with pytest.raises(ValueError, match="adapters of layer have no module"):
            put({"other": {}}, adapters, ANY)
        with pytest.raises(ValueError, match="adapter of layer/proj has no kernel"):
            put({"layer": {"proj": {"bias": jnp.ones(4)}}}, adapters, ANY)


@pytest.mark.parametrize("lora, message", [
    ({"rank": -1}, "rank must be >= 0, got -1"),
    ({"rank": 2, "alpha": 0}, "alpha must be positive, got 0"),
    ({"rank": 2, "targets": []}, "targets must name a module"),
    ({"base": "nf4"}, "base='nf4' is for adapters"),
    ({"rank": 2, "targets": ["q_(proj"]}, r"'q_\(proj' is no regular expression"),
])
def test_bad_configs_are_refused(lora, message):
    with pytest.raises(ConfigError, match=message):
        resolve({"name": "run", "stages": [{"kind": "sft", "steps": 1, "lora": lora}]})


def test_adapters_have_a_place_on_every_mesh():
    mesh = AbstractMesh((2, 4, 1), AXES, axis_types=(AxisType.Auto,) * 3)
    params = {"layer": {"up_proj": {"kernel": jax.ShapeDtypeStruct((512, 2048), jnp.float32)},
                        "k_proj": {"kernel": jax.ShapeDtypeStruct((64, 16), jnp.float32)}}}
    config = LoraConfig(rank=4, targets=(".*_proj",))
    tx = make_optimizer(OptimConfig(weight_decay=0.1), 1)

    def start():
        return init_state(init_adapters(params, config, jax.random.key(0)), tx, jax.random.key(0))

    state = tree_shardings(jax.eval_shape(start), mesh, "fsdp")
    placed = jax.tree.map(lambda sharding: sharding.spec, state.params)["layer"]
    assert placed["up_proj"] == {"lora_a": PartitionSpec("fsdp"),
                                 "lora_b": PartitionSpec(None, "fsdp")}
    assert placed["k_proj"] == {"lora_a": PartitionSpec(), "lora_b": PartitionSpec()}
    moments = [s.spec for s in jax.tree.leaves(state.opt_state)]
    assert moments.count(PartitionSpec("fsdp")) == moments.count(PartitionSpec(None, "fsdp")) == 2


@pytest.fixture(scope="module")
def stages(small_guard, quick_compilation):
    """Three steps of adapters, then two of weights; compiled once for all tests."""
    def sft(steps, **changes):
        config = small_guard.config("sft", steps, **changes)
        return SFTStage(config, small_guard.model, small_guard.source(num=steps), 5)

    return [sft(3, name="adapters", lora=LORA), sft(2, name="weights", freeze=("visual",))]


def test_sft_learns_with_adapters_and_leaves_the_rest(small_guard, stages):
    stage, after = stages
    before = jax.tree.map(np.array, small_guard.params)
    bundle = stage.init(Bundle(frozen=small_guard.params))
    same(bundle.params, before)                 # as B is zero, the model is the base's, bit by bit
    start = jax.device_get(bundle.state.params)
    batch, losses = next(bundle.data_iterator), []
    for index in range(8):
        with CompilationCounter() as compiled:
            bundle, metrics, _ = stage.step(bundle, batch)
        losses.append(float(metrics["loss"][0] / metrics["loss"][1]))
        assert index == 0 or compiled.count == 0, "a step gives back what it takes"
    assert losses[-1] < 0.8 * losses[0]
    same(bundle.frozen, before)
    moved = jax.tree.map(lambda new, old: not np.array_equal(new, old),
                         jax.device_get(bundle.state.params), start)
    assert all(jax.tree.leaves(moved))
    done = stage.finish(bundle)
    assert done.state is None and jax.tree.structure(done.frozen) == jax.tree.structure(before)
    changed = jax.tree.map(lambda new, old: not np.array_equal(new, old),
                           jax.device_get(done.frozen), before)
    paths = {jax.tree_util.keystr(path, simple=True, separator="/").removesuffix("/kernel")
             for path, is_changed in jax.tree_util.tree_leaves_with_path(changed) if is_changed}
    assert paths == set(target_kernels(before, LORA))
    # A stage of ordinary weights goes on from what this one made.
    _, metrics, _ = after.step(after.init(done), batch)
    _, last, _ = stage.step(bundle, batch)
    np.testing.assert_allclose(metrics["loss"][0], last["loss"][0], rtol=1e-4)


def test_the_sight_stage_adapts_the_tower_alone(small_guard):
    lora = dataclasses.replace(LORA, targets=("qkv", "(gate|up|down)_proj"))
    stage = SightStage(small_guard.config("sight", 1, lora=lora), small_guard.model, [None], 0)
    trained, frozen = stage.recipe.split(small_guard.params, jax.random.key(0))
    assert set(trained) == {"visual"} and frozen is small_guard.params


def test_the_exact_stage_takes_adapters_too(small_guard):
    config = small_guard.config("exact", 1, lora=LORA, freeze=("visual",))
    stage = ExactStage(config, small_guard.model, small_guard.source(num=1), 0)
    bundle = stage.init(Bundle(frozen=small_guard.params))
    assert set(bundle.state.params) == {"model"} and bundle.ref_params is None
    same(stage.finish(bundle).frozen, small_guard.params)


def test_a_run_with_adapters_that_is_killed_twice_goes_on_bit_by_bit(
        small_guard, stages, tmp_path):
    """In the stage of adapters, and in the one after it, which starts from their sum."""
    straight = small_guard.run(stages, tmp_path / "straight")
    adapters, weights = stages
    for killed in ([small_guard.interrupted(adapters, 2, KeyError), weights],
                   [adapters, small_guard.interrupted(weights, 1, KeyError)]):
        with pytest.raises(KeyError):
            small_guard.run(killed, tmp_path / "killed")
    again = small_guard.run(stages, tmp_path / "killed")
    same(again.params, straight.params)
