"""The tables of README.md: what rows of the paper's size take of TPU slices.

    python experiments/scale/aot_tables.py                      the tables, from results.json
    JAX_PLATFORMS=cpu python experiments/scale/aot_tables.py --compile v5e:4x4 v6e:2x4
    JAX_PLATFORMS=cpu python experiments/scale/aot_tables.py --compile all

Compiling needs libtpu and no TPU: two to eight minutes a slice on a free core, 4 GB.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from guardjax.atomic import write_text
from guardjax.cli.main import main as guardjax

RESULTS = pathlib.Path(__file__).with_name("results.json")

FULL = ("--config", "grpo_7b", "--prompts-a-way", "1")
ADAPTERS = ("stages.0.lora.rank=64", "stages.0.lora.alpha=128")
SPLASH = "attention=splash"
SFT = ("--config", "sft_7b", "--prompts-a-way", "1")
# Name of a line -> words of `guardjax aot`.
CASES: Mapping[str, Sequence[str]] = {
    "v5p:2x2x1": (*FULL, "--topology", "v5p:2x2x1", "--mesh", "fsdp=4"),
    "v6e:2x2": (*FULL, "--topology", "v6e:2x2", "--mesh", "fsdp=4"),
    "v6e:2x4": (*FULL, "--topology", "v6e:2x4", "--mesh", "fsdp=8"),
    "v5e:2x4": (*FULL, "--topology", "v5e:2x4", "--mesh", "fsdp=8"),
    "v5e:4x4": (*FULL, "--topology", "v5e:4x4", "--mesh", "fsdp=16"),
    "v5e:4x8": (*FULL, "--topology", "v5e:4x8", "--mesh", "fsdp=32"),
    "v5e:16x16 by 16": (*FULL, "--topology", "v5e:16x16", "--mesh", "data=16,fsdp=16"),
    "v5e:16x16 by 32": (*FULL, "--topology", "v5e:16x16", "--mesh", "data=8,fsdp=32"),
    "v5p:2x2x4": (*FULL, "--topology", "v5p:2x2x4", "--mesh", "fsdp=16"),
    "v5p:4x8x8 by 16": (*FULL, "--topology", "v5p:4x8x8", "--mesh", "data=16,fsdp=16"),
    "v6e:4x4": (*FULL, "--topology", "v6e:4x4", "--mesh", "fsdp=16"),
    "v6e:16x16 by 16": (*FULL, "--topology", "v6e:16x16", "--mesh", "data=16,fsdp=16"),
    "v5e:2x4, adapters": (*FULL, "--topology", "v5e:2x4", "--mesh", "fsdp=8", *ADAPTERS),
    "v6e:2x4, splash": (*FULL, "--topology", "v6e:2x4", "--mesh", "fsdp=8", SPLASH),
    "v5e:4x4, splash": (*FULL, "--topology", "v5e:4x4", "--mesh", "fsdp=16", SPLASH),
    "v5e:16x16 by 16, splash": (*FULL, "--topology", "v5e:16x16", "--mesh", "data=16,fsdp=16",
                                SPLASH),
    "v5e:2x4, captions": (*SFT, "--topology", "v5e:2x4", "--mesh", "fsdp=8"),
}
# Cases of few chips and of many, each chip with as much to do.
GROWTH: Sequence[tuple[str, str]] = (
    ("v5p:2x2x4", "v5p:4x8x8 by 16"), ("v6e:4x4", "v6e:16x16 by 16"),
    ("v5e:4x4, splash", "v5e:16x16 by 16, splash"), ("v5e:4x4", "v5e:16x16 by 16"),
    ("v5e:4x8", "v5e:16x16 by 32"))
_WORK = ("flops", "bytes", "sent")      # of a program, in `GROWTH`'s table
_GIB = 2**30


def compile_cases(names: Sequence[str]) -> None:
    """Compiles the named cases, one after the other, and keeps each as it is done."""
    for name in names:
        print(f"{name}: compiling, some minutes", flush=True)
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            status = guardjax(["aot", *CASES[name], "--json"])
        if status == 2:
            raise SystemExit(f"{name}: guardjax aot failed: see above")
        kept = kept_results()
        kept[name] = {"words": list(CASES[name]), "plan": json.loads(out.getvalue())[0]}
        write_text(RESULTS, json.dumps({key: kept[key] for key in CASES if key in kept}, indent=1)
                   + "\n")


def tables(results: Mapping[str, Any]) -> str:
    """Markdown: memory, and work with its least time."""
    lines = ["| slice | program | arguments | temporary | peak | HBM | spare | fits |",
             "|---|---|---|---|---|---|---|---|"]
    for name, program, plan in _programs(results):
        memory, hbm = program["memory"], program["hbm"] / _GIB
        if not program["compiled"]:
            if memory["peak"] > program["hbm"]:
                lines.append(f"| {name} | {program['name'].split('/')[-1]} | "
                             f"{memory['peak'] / _GIB:.2f} with gradients | | > "
                             f"{memory['peak'] / _GIB:.2f} | {hbm:.2f} | | no |")
            continue
        fits = "yes" if program["spare"] >= plan["spare_asked"] else "no"
        lines.append(f"| {name} | {program['name'].split('/')[-1]} | " + " | ".join(
            f"{memory[key] / _GIB:.2f}" for key in ("arguments", "temporaries", "peak"))
            + f" | {hbm:.2f} | {program['spare']:.1%} | {fits} |")
    lines += ["", "| slice | program | TFLOP | against sizes | moved | sent | compute | memory | "
              "links | least time | FLOP floor |", "|---|---|---|---|---|---|---|---|---|---|---|"]
    for name, program, _ in _programs(results):
        if not program["compiled"]:
            continue
        seconds = program["seconds"]
        lines.append(
            f"| {name} | {program['name'].split('/')[-1]} | {program['flops'] / 1e12:.1f} | "
            f"{program['excess']:+.1%} | {program['bytes'] / 1e9:,.0f} GB | "
            f"{_of(program, 'sent') / 1e9:.0f} GB | " + " | ".join(
                f"{seconds[key]:.2f} s" for key in ("compute", "memory", "links", "least"))
            + f" | {seconds['floor'] / seconds['least']:.0%} |")
    return "\n".join(lines)


def growth(results: Mapping[str, Any]) -> str:
    """Markdown: what a chip of many has to do beside what a chip of few has, by `GROWTH`."""
    lines = ["| from | to | program | FLOPs | moved | sent | least time |",
             "|---|---|---|---|---|---|---|"]
    for few, many in GROWTH:
        pair = zip(*(results[name]["plan"]["programs"] for name in (few, many)), strict=True)
        for before, after in pair:
            shares = [f"{_of(after, key) / _of(before, key) - 1:+.0%}" for key in _WORK]
            lines.append(
                f"| {few} | {many} | {before['name'].split('/')[-1]} | {' | '.join(shares)} | "
                f"{before['seconds']['least']:.2f} -> {after['seconds']['least']:.2f} s |")
    return "\n".join(lines)


def _of(program: Mapping[str, Any], key: str) -> float:
    return sum(program[key].values()) if key == "sent" else program[key]


def _programs(results: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    return [(name, program, each["plan"]) for name, each in results.items()
            for program in each["plan"]["programs"]]


def kept_results() -> dict[str, Any]:
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else {}


def main() -> None:
    """Compiles what is asked for, then prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--compile", nargs="+", default=[], metavar="CASE",
                        choices=[*CASES, "all"], help=f"all, or some of: {'; '.join(CASES)}")
    chosen = parser.parse_args().compile
    compile_cases(list(CASES) if "all" in chosen else chosen)
    print(tables(kept_results()), growth(kept_results()), sep="\n\n")


if __name__ == "__main__":
    main()
