"""Real stages on eight fake devices under every rule set; prints what they computed as JSON.

    XLA_FLAGS=--xla_force_host_platform_device_count=8 \\
        python -m tests.train.many_devices sft [--words] [--splash] [RULES ...]

With `--words` no batch shows a picture, which is half the programs to compile. With `--splash`
attention is splash's on several devices, step by step, and `xla`'s on one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import sys
from typing import Any

import jax
import numpy as np
import optax

from guardjax import models
from guardjax.cli.assets import model_dir
from guardjax.data.batching import load_batcher
from guardjax.models import qwen2_5_vl
from guardjax.models.attention import splash
from guardjax.models.tiny import tiny_config
from guardjax.rewards.compose import Scores
from guardjax.rl.model_fns import bind
from guardjax.train.config import MeshConfig, OptimConfig, RLConfig, StageConfig
from guardjax.train.sharding import Placement, make_mesh
from guardjax.train.stages.grpo import GRPOStage
from guardjax.train.stages.model import StageModel
from guardjax.train.stages.sft import SFTStage
from guardjax.train.state import Bundle
from tests.train.conftest import ReadSource

MESHES = {
    "single": MeshConfig(),
    "data_parallel": MeshConfig(data=-1, rules="data_parallel"),
    "fsdp": MeshConfig(data=2, fsdp=4, rules="fsdp"),
    "fsdp_tensor": MeshConfig(data=2, fsdp=2, tensor=2, rules="fsdp_tensor"),
}
STEPS, BATCH, GROUP = 2, 8, 4


def small_model() -> tuple[Any, Any]:
    """(config, batcher): two layers in a loop, two key heads for two ways of `tensor`."""
    batcher = load_batcher(model_dir("base"))
    cfg = tiny_config(-(-batcher.tokenizer.vocab_size // 64) * 64,
                      first_special_id=batcher.tokenizer.pad_id)
    text = dataclasses.replace(
        cfg.text, num_hidden_layers=2, hidden_size=64, intermediate_size=96,
        num_attention_heads=4, num_key_value_heads=2, mrope_section=(2, 3, 3))
    vision = dataclasses.replace(
        cfg.vision, depth=1, hidden_size=32, intermediate_size=48, fullatt_block_indexes=(0,),
        out_hidden_size=64)
    return dataclasses.replace(
        cfg, text=text, vision=vision, scan_layers=True, remat="full"), batcher


def run(kind: str, config: MeshConfig, pictures: bool = True) -> dict[str, Any]:
    """Losses of a few steps, the first gradient, and where a kernel and its moment lie."""
    cfg, batcher = small_model()
    mesh = make_mesh(config)
    placement = None if config.rules == "single" else Placement(mesh, config.rules)
    # Without a first moment's memory the moment is the gradient.
    optim = OptimConfig(lr=1e-3, schedule="constant", clip_norm=0.0, b1=0.0)
    rl = RLConfig(preset="grpo", group_size=GROUP, max_tokens=8, kl_coef=0.1, reward="safeguard_vl")
    stage_config = StageConfig(
        kind=kind, steps=STEPS, batch=BATCH, optim=optim, freeze=("visual",),
        rl=rl if kind == "grpo" else RLConfig())
    source = ReadSource(batcher, STEPS, batch=BATCH, pictures=(0,) if pictures else ())
    stage = {"sft": SFTStage, "grpo": GRPOStage}[kind](
        stage_config, StageModel(cfg, bind(models, cfg), batcher, placement), source, 0)
    if kind == "grpo":
        stage._reward = ByPlace()
    params = models.init_params(cfg, jax.random.key(0))
    losses, grads = [], None
    with contextlib.nullcontext() if placement is None else jax.set_mesh(mesh):
        bundle = stage.init(Bundle(frozen=params if placement is None else placement.put(params)))
        for step in range(STEPS):
            bundle, metrics, _ = stage.step(bundle, source[step])
            losses.append(float(metrics["loss"][0] / metrics["loss"][1]))
            moment = optax.tree.get(bundle.state.opt_state, "mu")
            if step == 0:
                grads = jax.device_get(moment)
    kernel = bundle.state.params["model"]["layers"]["mlp"]["up_proj"]["kernel"]
    moment = moment["model"]["layers"]["mlp"]["up_proj"]["kernel"]
    return {"losses": losses, "grads": grads, "devices": len(mesh.devices.flat),
            "shards": [each.addressable_shards[0].data.shape for each in (kernel, moment)],
            "traces": [jit.num_traces for jit in stage.jits]}


class ByPlace:
    """Rewards an answer by its place in the group: a model that knows nothing ends no answer."""

    parts = ()      # none that holds examples against each other

    def score(self, examples: Any, texts: Any, seconds: float = 0.0) -> Any:
        """See `guardjax.rewards.compose.Composition`."""
        return Scores(np.arange(len(texts)) % GROUP / GROUP, np.ones(len(texts), bool), {})


def main() -> None:
    """Prints, for each rule set, losses, places and the gradient's distance from one device's."""
    jax.config.update("jax_disable_most_optimizations", True)      # compiled once, run twice
    kind, *names = sys.argv[1:]
    pictures, kernel = "--words" not in names, "--splash" in names
    names = [name for name in names if not name.startswith("--")]
    out, first = {}, None
    for name in names or MESHES:
        if kernel and name != "single":
            qwen2_5_vl.attention_backend = lambda cfg: functools.partial(
                splash.attend, interpret=True)
        found = run(kind, MESHES[name], pictures)
        grads = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(found.pop("grads"))]
        first = grads if first is None else first
        norm = np.sqrt(sum(np.square(leaf).sum() for leaf in first))
        apart = np.sqrt(sum(np.square(a - b).sum() for a, b in zip(grads, first, strict=True)))
        out[name] = found | {"gradient": float(norm), "apart": float(apart / norm)}
    print(json.dumps(out))


if __name__ == "__main__":
    main()
