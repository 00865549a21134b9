"""Layers in a loop, counted times their trips, against programs of one and two layers unrolled.

The other way to count: a layer costs what the second one adds, and L layers cost the first program
and L - 1 times that. It needs more programs, and agrees.
"""

import json
import os
import subprocess
import sys
import textwrap

import pytest

CODE = textwrap.dedent("""
    import dataclasses, json
    import jax
    from guardjax.models.tiny import tiny_config
    from guardjax.scale.counts import count
    from guardjax.scale.workload import Lengths, Workload
    from guardjax.train.config import MeshConfig, RunConfig, StageConfig
    from guardjax.train.sharding import make_mesh

    rules = MeshConfig(fsdp=-1, rules="fsdp")

    def cost(layers, scan):
        cfg = tiny_config(512)
        cfg = dataclasses.replace(
            cfg, scan_layers=scan, remat="full",
            text=dataclasses.replace(cfg.text, num_hidden_layers=layers))
        stage = StageConfig(kind="sft", steps=10, batch=8, freeze=("visual",))
        mesh = make_mesh(rules)
        (program,) = Workload(RunConfig(name="count", stages=(stage,), mesh=rules), stage, cfg,
                              Lengths(64, 16, 16), mesh).programs()
        with jax.set_mesh(mesh):
            return count(program.jit.lower(*program.args).compile().as_text())

    one, two, four = cost(1, False), cost(2, False), cost(4, True)
    sum_up = lambda each: {"flops": each.flops, "bytes": each.bytes, "sent": each.sent}
    print(json.dumps([sum_up(one), sum_up(one + (two - one) * 3), sum_up(four)]))
""")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_four_layers_in_a_loop_cost_what_one_and_two_unrolled_say():
    env = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=8",
                        "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", CODE], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    one, extrapolated, scanned = json.loads(done.stdout.splitlines()[-1])
    for name, found in scanned.items():
        assert found == pytest.approx(extrapolated[name], rel=0.05), name
        assert found > 1.5 * one[name], "layers must count, else nothing was compared"
