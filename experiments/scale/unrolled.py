"""The two ways to count a program at the paper's widths: loops times their trips, or by layers.

    JAX_PLATFORMS=cpu python experiments/scale/unrolled.py grpo_7b update v5e:4x4

Programs of one and of two decoder layers without a loop: a layer costs what the second adds, so all
28 cost the first program and 27 times that. Beside it what `guardjax aot` counts on the program of
28 layers in a loop. The mesh is fsdp over all chips, a prompt of 2,048 tokens each; no pictures,
since the tower would be unrolled, too. Three compilations.
"""

from __future__ import annotations

import dataclasses
import json
import sys

import jax

from guardjax.cli import compose, rows
from guardjax.scale.counts import count
from guardjax.scale.roofline import Cost
from guardjax.scale.slices import parse_slice, slice_mesh
from guardjax.scale.workload import Lengths, Workload
from guardjax.train.config import MeshConfig

RULES = MeshConfig(fsdp=-1, rules="fsdp")


def main(row: str, program: str, name: str) -> None:
    """Prints one line of JSON: FLOPs, bytes and bytes sent of one chip, both ways."""
    run = dataclasses.replace(rows.load_row(row, 0, []), mesh=RULES)
    cfg, mesh = compose.model_config(run), slice_mesh(parse_slice(name), RULES)
    stage = dataclasses.replace(run.stages[0], batch=mesh.size)

    def cost(layers: int, *, loop: bool) -> Cost:
        text = dataclasses.replace(cfg.text, num_hidden_layers=layers)
        work = Workload(run, stage, dataclasses.replace(cfg, text=text, scan_layers=loop),
                        Lengths(image=0), mesh)
        each = next(each for each in work.programs() if each.jit.name.split("/")[-1] == program)
        with jax.set_mesh(mesh):
            compiled = each.jit.lower(*each.args).compile()
        return count(compiled.as_text(), endless=stage.rl.max_tokens - 1)

    depth = cfg.text.num_hidden_layers
    one, two, all_layers = cost(1, loop=False), cost(2, loop=False), cost(depth, loop=True)
    by_layers = {key: first + (second - first) * (depth - 1) for key, first, second in zip(
        ("flops", "bytes", "sent"), _sums(one), _sums(two), strict=True)}
    looped = dict(zip(by_layers, _sums(all_layers), strict=True))
    print(json.dumps({"program": f"{row} {program}", "slice": name, "in_a_loop": looped,
                      "by_layers": by_layers, "apart": {
                          key: looped[key] / by_layers[key] - 1 for key in looped}}))


def _sums(cost: Cost) -> tuple[float, float, float]:
    return cost.flops, cost.bytes, cost.sent


if __name__ == "__main__":
    main(*sys.argv[1:])
