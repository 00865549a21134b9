"""A batch that a mesh does not divide is refused, and the mesh that it fits is named."""

import dataclasses
import itertools
import os
import pathlib
import re
import subprocess
import sys

import pytest

from guardjax.train.batch_fit import best_split, check_stage_batch
from guardjax.train.config import RLConfig, StageConfig


class Shape:
    """What a check looks at of a mesh."""

    def __init__(self, data, fsdp, tensor=1):
        self.shape = {"data": data, "fsdp": fsdp, "tensor": tensor}
        self.size = data * fsdp * tensor


def grpo(batch, **rl):
    return StageConfig(kind="grpo", steps=1, batch=batch, rl=RLConfig(**rl))


@pytest.mark.parametrize("batch, heads, devices", list(itertools.product(
    (1, 2, 6, 16, 48), (1, 2, 4), (1, 4, 8, 16))))
def test_the_split_is_the_best_of_all(batch, heads, devices):
    ways, tensor = best_split(batch, heads, devices)
    assert batch % ways == 0 and heads % tensor == 0 and ways * tensor <= devices
    others = [w * t for w in range(1, devices + 1) for t in range(1, devices // w + 1)
              if batch % w == 0 and heads % t == 0]
    assert ways * tensor == max(others)


@pytest.mark.parametrize("stage, mesh, message", [
    # The paper's two prompts: eight chips can be kept busy, no sixteen.
    (grpo(2), Shape(1, 8), "use a batch of 8, or a smaller mesh; 8 devices take a batch of 2 as "
                           "mesh.fsdp=2 mesh.tensor=4 mesh.rules=fsdp_tensor"),
    (grpo(2), Shape(1, 16), "use a batch of 16.*keeps no more than 8 devices busy, as "
                            "mesh.fsdp=2 mesh.tensor=4 mesh.rules=fsdp_tensor: take so many, or"),
    (grpo(12), Shape(4, 2), "use a batch of 8 or 16.*8 devices take a batch of 12 as mesh.fsdp=4 "
                            "mesh.tensor=2"),
    (grpo(32, micro_batches=4), Shape(1, 16), r"32 prompts in rl.minibatches=1 \* "
                                              "rl.micro_batches=4 parts; fewer"),
    # Prompts of one picture stay together: 16 of them are 4 pictures.
    (dataclasses.replace(grpo(16), policies_per_image=4), Shape(1, 8),
     "a batch of 4 does not split .*16 prompts as pictures under policies_per_image=4, which stay"),
])
def test_a_mesh_that_does_not_divide_the_batch_is_refused(stage, mesh, message):
    with pytest.raises(ValueError, match=message):
        check_stage_batch(stage, 4, mesh)


def test_batches_that_split_pass():
    check_stage_batch(grpo(16), 4, Shape(1, 16))
    check_stage_batch(grpo(2), 4, Shape(1, 2, 4))
    check_stage_batch(grpo(32, micro_batches=2), 4, Shape(2, 8))
    check_stage_batch(dataclasses.replace(grpo(16), policies_per_image=4), 4, Shape(1, 4))


def test_training_on_eight_devices_refuses_the_papers_batch(tmp_path):
    """Through the verb, on real devices: before the world is built and anything is written."""
    env = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=8",
                        "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-m", "guardjax.cli.main", "train", "--config",
         "configs/safeguard_vl/grpo_varied.py", "--out", str(tmp_path / "run"), "mesh.fsdp=8",
         "mesh.rules=fsdp", "stages.0.batch=2"], env=env, capture_output=True, text=True,
        cwd=pathlib.Path(__file__).parents[2])
    assert done.returncode == 2
    assert re.search(r"stages.0.batch: a batch of 2 does not split over data=1 \* fsdp=8 = 8 ways: "
                     "use a batch of 8, or a smaller mesh; a batch of 2 keeps no more than",
                     done.stderr), done.stderr
    assert not (tmp_path / "run").exists()
