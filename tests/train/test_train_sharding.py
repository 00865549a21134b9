"""Meshes and rules on one device, and eight fake devices against one."""

import json
import os
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractMesh, AxisType, PartitionSpec

from guardjax.train.config import MeshConfig
from guardjax.train.sharding import (
    AXES, RULE_SETS, check_batch, leaf_spec, make_mesh, shard_batch, shard_tree)

MESH = AbstractMesh((2, 4, 1), AXES, axis_types=(AxisType.Auto,) * 3)


def test_one_device_is_a_mesh_too():
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    assert mesh.shape == {"data": 1, "fsdp": 1, "tensor": 1}
    assert set(mesh.axis_types) == {AxisType.Auto}
    params = shard_tree({"kernel": jnp.ones((64, 32))}, mesh, "fsdp")
    batch = shard_batch({"x": np.ones((3, 2), np.float32)}, mesh)
    assert params["kernel"].sharding.mesh == mesh and batch["x"].shape == (3, 2)


@pytest.mark.parametrize("sizes, devices, message", [
    (dict(data=3, rules="data_parallel"), 8, r"data=3 \* fsdp=1 \* tensor=1 does not fit 8 device"),
    (dict(data=-1, fsdp=3, rules="fsdp"), 8, r"data=-1 \* fsdp=3 .* does not fit 8"),
    (dict(data=2), 8, r"'single' uses one device"),
])
def test_meshes_that_do_not_fit_are_explained(sizes, devices, message):
    with pytest.raises(ValueError, match=message):
        make_mesh(MeshConfig(**sizes), jax.devices()[:1] * devices)


def test_at_most_one_size_is_left_open():
    with pytest.raises(ValueError, match="at most one -1"):
        MeshConfig(data=-1, fsdp=-1)


@pytest.mark.parametrize("path, shape, spec", [
    ("model/q_proj/kernel", (96, 128), PartitionSpec(None, "fsdp")),
    ("opt_state/1/mu/q_proj/kernel", (128, 96), PartitionSpec("fsdp")),
    ("model/kernel", (129, 96), PartitionSpec(None, "fsdp")),
    ("model/kernel", (129, 97), PartitionSpec()),
    ("model/kernel", (4, 4), PartitionSpec()),
    ("layers/input_layernorm/scale", (64, 4096), PartitionSpec()),
])
def test_fsdp_splits_the_largest_dimension_that_divides(path, shape, spec):
    assert leaf_spec(path, shape, MESH, RULE_SETS["fsdp"]) == spec
    assert leaf_spec(path, shape, MESH, RULE_SETS["data_parallel"]) == PartitionSpec()


def test_a_batch_that_does_not_divide_names_the_sizes_that_do():
    check_batch(16, MESH)
    with pytest.raises(ValueError, match=r"batch of 12 .* data=2 \* fsdp=4 = 8 .* of 8 or 16"):
        check_batch(12, MESH)
    with pytest.raises(ValueError, match="use a batch of 8, or"):
        check_batch(3, MESH)


EIGHT_DEVICES = textwrap.dedent("""
    import json, sys
    import jax, jax.numpy as jnp, numpy as np
    from guardjax.train.checkpoint import Checkpointer
    from guardjax.cli.compose import load_start
    from guardjax.train.config import CheckpointConfig, MemoryConfig, MeshConfig, OptimConfig
    from guardjax.train.optim import make_optimizer
    from guardjax.train.sharding import Placement, make_mesh, shard_batch, shard_tree
    from guardjax.train.state import Bundle, Clock, init_state
    from guardjax.train.steps import make_train_step

    def loss_fn(params, frozen, batch, key):
        x = batch["x"] + 0.1 * jax.random.normal(key, batch["x"].shape)
        y = jnp.tanh(x @ params["up"]["kernel"] + params["up"]["bias"]) @ params["down"]["kernel"]
        return jnp.sum((y - batch["y"]) ** 2), y.shape[0], {}

    tx = make_optimizer(OptimConfig(lr=0.01, weight_decay=0.1), 10)
    rng = np.random.default_rng(0)
    normal = lambda *shape: rng.normal(size=shape).astype(np.float32) / 4
    params = {"up": {"kernel": normal(16, 128), "bias": normal(128)},
              "down": {"kernel": normal(128, 16)}}
    batches = [{"x": normal(16, 16), "y": normal(16, 16)} for _ in range(4)]
    out = {}
    meshes = {"single": MeshConfig(), "data_parallel": MeshConfig(data=-1, rules="data_parallel"),
              "fsdp": MeshConfig(data=2, fsdp=4, rules="fsdp")}
    for name, config in meshes.items():
        mesh = make_mesh(config)
        state = shard_tree(init_state(params, tx, jax.random.key(1)), mesh, config.rules)
        step = make_train_step(loss_fn, tx, placement=Placement(mesh, config.rules))
        losses = []
        with jax.set_mesh(mesh):
            for batch in batches:
                state, metrics = step(state, {}, shard_batch(batch, mesh))
                losses.append(float(metrics["loss"][0] / metrics["loss"][1]))
        kernel = state.params["up"]["kernel"]
        moment = [m for m in jax.tree.leaves(state.opt_state) if m.shape == kernel.shape][0]
        out[name] = dict(losses=losses, traces=step.num_traces, devices=len(mesh.devices.flat),
                         shard=kernel.addressable_shards[0].data.shape,
                         moment=moment.addressable_shards[0].data.shape)
        if name == "fsdp":
            saver = Checkpointer(sys.argv[1], CheckpointConfig())
            saver.save(Bundle(frozen={}, state=state, clock=Clock(total=4, step=4)), {})
            mesh = make_mesh(meshes["data_parallel"])
            like = shard_tree(init_state(params, tx, jax.random.key(0)), mesh, "data_parallel")
            back = saver.restore(Bundle(frozen={}, state=like)).state
            out["restored"] = bool((back.params["up"]["kernel"] == np.asarray(kernel)).all()) and (
                back.params["up"]["kernel"].sharding.is_fully_replicated)
    rules = MeshConfig(data=2, fsdp=2, tensor=2, rules="fsdp_tensor")
    placement = Placement(make_mesh(rules), rules.rules)
    memory = MemoryConfig(scan_layers=True)
    _, whole, _ = load_start("guard", 0, memory)
    _, split, _ = load_start("guard", 0, memory, placement=placement)
    out["read"] = jax.tree.all(jax.tree.map(
        lambda one, other, place: bool((np.asarray(one) == other).all()) and (
            other.sharding.is_equivalent_to(place, other.ndim) and len(one.devices()) == 1),
        whole, split, placement.shardings(whole)))
    up = split["model"]["layers"]["mlp"]["up_proj"]["kernel"]
    out["read_shards"] = [up.shape, up.addressable_shards[0].data.shape]
    print(json.dumps(out))
""")


def test_eight_devices_give_the_losses_of_one(tmp_path):
    env = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=8",
                        "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-W", "error::DeprecationWarning:guardjax", "-c",
                           EIGHT_DEVICES, str(tmp_path)], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    out = json.loads(done.stdout.splitlines()[-1])
    assert [out[name]["devices"] for name in ("single", "data_parallel", "fsdp")] == [1, 8, 8]
    for name in ("data_parallel", "fsdp"):
        np.testing.assert_allclose(out[name]["losses"], out["single"]["losses"], rtol=1e-5)
        assert out[name]["traces"] == 1
    assert out["fsdp"]["shard"] == out["fsdp"]["moment"] == [16, 32]
    assert out["data_parallel"]["shard"] == [16, 128]
    assert out["restored"], "a checkpoint restores onto another mesh"
    assert out["read"], "weights are read to where the rules want them, and nowhere else"
    (layers, width, inner), shard = out["read_shards"]
    assert shard == [layers, width // 2, inner // 2]
    assert "rematerialization" not in done.stderr
