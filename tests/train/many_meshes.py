"""A run that changes its mesh from checkpoint to checkpoint; prints what came back as JSON.

    XLA_FLAGS=--xla_force_host_platform_device_count=8 python -m tests.train.many_meshes FOLDER
"""

from __future__ import annotations

import contextlib
import json
import pathlib
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from guardjax.train.checkpoint import Checkpointer
from guardjax.train.config import CheckpointConfig, MeshConfig, OptimConfig
from guardjax.train.optim import make_optimizer
from guardjax.train.sharding import Placement, make_mesh
from guardjax.train.state import Bundle, Clock, init_state
from guardjax.train.steps import make_train_step

MESHES = {
    "fsdp=8": MeshConfig(fsdp=8, rules="fsdp"),
    "data=2, fsdp=4": MeshConfig(data=2, fsdp=4, rules="fsdp"),
    "data=2, fsdp=2, tensor=2": MeshConfig(data=2, fsdp=2, tensor=2, rules="fsdp_tensor"),
    "one device": MeshConfig(),
}
STEPS = 3       # on each mesh


def loss(params: Any, frozen: Any, batch: Any, key: jax.Array) -> Any:
    """Squared error of two layers on inputs with noise, so that the key matters."""
    del frozen
    x = batch["x"] + 0.1 * jax.random.normal(key, batch["x"].shape)
    y = jnp.tanh(x @ params["up_proj"]["kernel"]) @ params["down_proj"]["kernel"]
    return jnp.sum((y - batch["y"]) ** 2), jnp.float32(y.size), {}


def start(config: MeshConfig) -> tuple[Bundle, Any, Any]:
    """(bundle at step 0, step function, placement) on a mesh."""
    mesh = make_mesh(config)
    placement = None if config.rules == "single" else Placement(mesh, config.rules)
    keys = jax.random.split(jax.random.key(0))
    params = {"up_proj": {"kernel": jax.random.normal(keys[0], (64, 128)) / 8},
              "down_proj": {"kernel": jax.random.normal(keys[1], (128, 64)) / 11}}
    tx = make_optimizer(OptimConfig(lr=1e-2, schedule="constant"), 1)
    state = init_state(params, tx, jax.random.key(1))
    state = jax.device_put(state, jax.devices()[0]) if placement is None else placement.put(state)
    return Bundle(frozen={}, state=state), make_train_step(loss, tx, placement=placement), placement


def batch_of(step: int) -> dict[str, np.ndarray]:
    """16 rows that follow from the step."""
    rng = np.random.default_rng(step)
    return {name: rng.normal(size=(16, 64)).astype(np.float32) for name in ("x", "y")}


def train(bundle: Bundle, step: Any, placement: Any) -> tuple[Bundle, list[float]]:
    """`STEPS` steps further."""
    losses = []
    with contextlib.nullcontext() if placement is None else jax.set_mesh(placement.mesh):
        for _ in range(STEPS):
            batch = batch_of(bundle.clock.total)
            state, metrics = step(bundle.state, {}, placement.put_batch(batch) if placement
                                  else batch)
            losses.append(float(metrics["loss"][0] / metrics["loss"][1]))
            bundle = bundle.replace(state=state, clock=bundle.clock.tick(0.0))
    return bundle, losses


def host(state: Any) -> list[np.ndarray]:
    """Leaves of a state as NumPy arrays, the key as its words."""
    leaves = [jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
              else leaf for leaf in jax.tree.leaves(state)]
    return [np.asarray(leaf) for leaf in leaves]


def main() -> None:
    """Prints losses over all meshes, those of one device alone, and whether arrays came back."""
    folder = pathlib.Path(sys.argv[1])
    losses, equal, shards, before = [], [], {}, None
    for name, config in MESHES.items():
        with Checkpointer(folder, CheckpointConfig()) as saver:
            bundle, step, placement = start(config)
            if before is not None:
                bundle = saver.restore(bundle)
                equal.append(all(np.array_equal(one, other) for one, other in zip(
                    host(bundle.state), before, strict=True)))
            bundle, found = train(bundle, step, placement)
            losses += found
            kernel = bundle.state.params["up_proj"]["kernel"]
            shards[name] = [len(kernel.sharding.device_set),
                            kernel.addressable_shards[0].data.shape]
            before = host(bundle.state)
            saver.save(bundle, {})
    bundle, step, _ = start(MESHES["one device"])
    alone = []
    for _ in MESHES:
        bundle, found = train(bundle, step, None)
        alone += found
    assert bundle.clock == Clock(step=len(alone), total=len(alone))
    print(json.dumps({"losses": losses, "alone": alone, "equal": equal, "shards": shards}))


if __name__ == "__main__":
    main()
