"""`guardjax aot`: compile a run for a TPU slice that is not there, and say whether it fits."""

from __future__ import annotations

import argparse
import dataclasses
import json
from typing import Any

from guardjax.cli.usage import fail, positive

_EPILOG = """\
examples:
  guardjax aot --config grpo_7b --topology v5p:2x2x2
  guardjax aot --config grpo_7b --topology v5e:4x4 --mesh fsdp=8,tensor=2 stages.0.batch=8
  guardjax aot --config grpo_7b --search v5e,v5p,v6e --prompts-a-way 1

Needs libtpu (pip install 'guardjax[tpu]') and no TPU; set JAX_PLATFORMS=cpu where there is none.
No weights are read, and none are made: a base that is a release, such as
Qwen/Qwen2.5-VL-7B-Instruct, need not be downloaded. Bytes, FLOPs and messages are read off the
programs that a run on that slice would compile; times are bounds from published figures, not
predictions.

Compiling a program of seven billion parameters takes minutes and 3 GB of memory.

exit status: 0 every program fits with 5 % of the memory to spare (of a search: of some slice of
every generation), 1 one does not, 2 bad input.
"""


def add_parser(subparsers: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Adds the verb `aot`."""
    parser = subparsers.add_parser(
        "aot", help="compile a run for a TPU slice, ahead of time", epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True, metavar="FILE|ROW",
                        help="a file of configs/, or a row's name")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--topology", metavar="SLICE", help="such as v5e:4x4 or v5p:2x2x2")
    where.add_argument("--search", metavar="GENERATION,...",
                       help="slices of each, smallest first, until one fits")
    parser.add_argument("--mesh", default="", metavar="AXIS=N,...",
                        help="sizes of data, fsdp and tensor; -1 takes what is left "
                             "(default: the config's, or fsdp=-1)")
    parser.add_argument("--stage", metavar="NAME", help="one stage (default: all)")
    parser.add_argument("--prompts-a-way", type=positive, metavar="N",
                        help="batch of N for every data * fsdp way, in place of the stage's")
    parser.add_argument("--prompt", type=positive, default=2048, metavar="P",
                        help="padded prompt tokens (default: 2048)")
    parser.add_argument("--image", type=int, default=1024, metavar="U",
                        help="image tokens of these; 0 for words only (default: 1024)")
    parser.add_argument("--answer", type=positive, default=512, metavar="T",
                        help="padded tokens of a supervised answer (default: 512)")
    parser.add_argument("--json", action="store_true",
                        help="print records, in bytes, FLOPs and seconds, in place of tables")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="what to change")
    parser.set_defaults(run=main)
    return parser


def main(args: argparse.Namespace) -> int:
    """Runs the verb; returns the exit status."""
    from rich.console import Console

    from guardjax.cli import compose, rows
    from guardjax.scale import records, slices, tables
    from guardjax.scale.chips import CHIPS
    from guardjax.scale.workload import Lengths

    is_file = args.config.endswith(".py")
    run = (compose.load_config(args.config, args.overrides) if is_file
           else rows.load_row(args.config, 0, args.overrides))
    cfg = compose.model_config(run)
    try:
        lengths = Lengths(args.prompt, args.image, args.answer)
        run = dataclasses.replace(run, mesh=_mesh(args.mesh, run.mesh))
        if args.topology:
            ladders = [[slices.parse_slice(args.topology)]]
        else:
            ladders = [[slices.parse_slice(f"{name}:{shape}") for shape in CHIPS[name].slices]
                       for name in _generations(args.search)]
        stages = [stage for stage in run.stages if args.stage in (None, stage.name)]
        if not stages:
            raise ValueError(f"--stage {args.stage} is none of "
                             f"{', '.join(stage.name for stage in run.stages)}")
        climbs = [_climb(ladder, run, stage, cfg, lengths, args.prompts_a_way)
                  for stage in stages for ladder in ladders]
    except ValueError as error:
        return fail("aot", error)
    plans = [plan for climb in climbs for plan in climb]
    status = 0 if all(climb[-1].fits for climb in climbs) else 1
    if args.json:
        print(json.dumps([records.plan_record(plan) for plan in plans], indent=1))
        return status
    console = Console(width=None if Console().is_terminal else 160)
    console.print(tables.memory_table(plans))
    if any(each.cost for plan in plans for each in plan.programs):
        console.print(tables.work_table(plans))
        console.print(tables.sent_table(plans))
    sources = {plan.slice.chip.name: plan.slice.chip.source for plan in plans}
    console.print("Published figures: " + "; ".join(
        f"{name}: {source}" for name, source in sources.items()), highlight=False)
    for line in _doubts(plans):
        console.print(line, highlight=False)
    return status


def _generations(text: str) -> list[str]:
    from guardjax.scale.chips import CHIPS

    names = text.split(",")
    for name in names:
        if name not in CHIPS:
            raise ValueError(f"--search {name!r}: generations are {', '.join(CHIPS)}")
    return names


def _mesh(text: str, default: Any) -> Any:
    """The mesh of "fsdp=8,tensor=2", with the rules that use those axes; the config's if empty."""
    from guardjax.train.config import MeshConfig
    from guardjax.train.sharding import AXES

    if not text:
        return MeshConfig(fsdp=-1, rules="fsdp") if default == MeshConfig() else default
    sizes = dict.fromkeys(AXES, 1)
    for part in text.split(","):
        axis, _, number = part.partition("=")
        if axis not in sizes or not number.lstrip("-").isdecimal():
            raise ValueError(f"--mesh {part!r}: give sizes of {', '.join(AXES)}, such as "
                             "fsdp=8,tensor=2")
        sizes[axis] = int(number)
    rules = ("fsdp_tensor" if sizes["tensor"] != 1 else "fsdp" if sizes["fsdp"] != 1
             else "data_parallel")
    return MeshConfig(**sizes, rules=rules)


def _climb(ladder: list[Any], run: Any, stage: Any, cfg: Any, lengths: Any,
           prompts: int | None) -> list[Any]:
    """Plans for the slices of a ladder, up to the first that fits."""
    from guardjax.scale.plan import make_plan
    from guardjax.scale.slices import slice_mesh
    from guardjax.scale.workload import Workload

    plans = []
    for step in ladder:
        mesh = slice_mesh(step, run.mesh)
        batch = stage.batch if prompts is None else (
            prompts * mesh.shape["data"] * mesh.shape["fsdp"])
        workload = Workload(run, dataclasses.replace(stage, batch=batch), cfg, lengths, mesh)
        plans.append(make_plan(step, workload))
        if plans[-1].fits:
            break
    return plans


def _doubts(plans: list[Any]) -> list[str]:
    """A line for each program whose FLOPs are not what its sizes say."""
    from guardjax.scale.plan import TOLERANCE

    return [f"{plan.slice.name} {each.name}: {each.excess:+.1%} FLOPs against the count from the "
            f"model's sizes, beyond {TOLERANCE:.0%}: chips repeat each other's work, or the count "
            "is wrong" for plan in plans for each in plan.programs
            if each.excess is not None and abs(each.excess) > TOLERANCE]
