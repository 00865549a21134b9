"""Holds the port against transformers and writes the tables of the README beside this file.

    python -m experiments.parity.run [--group NAME] [--shapes NAME ...]

Run from the root of the repository, where torch is installed (extra `parity`). Exits with 1 if a
bar is missed. With `--group` only the tables of one group of models are written; with `--shapes`
they are printed and not written.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import functools
import importlib.metadata
import pathlib
import platform
import sys
from collections.abc import Callable, Iterable

import jax
import numpy as np
import torch

from experiments.parity.tables import Result, problems, render
from guardjax.models.config import ModelConfig
from tests.models import parity_port as port
from tests.models import reference_model
from tests.models.parity_cases import (END_ID, FAMILY_SHAPES, MAX_TOKENS, RELEASE_SHAPES, kinds_of,
                                       make_answers, make_rows, random_tensor, shrunk)
from tests.models.parity_errors import leaf_errors, relative_error, rms_error
from tests.models.reference_cases import positions_of

README = pathlib.Path(__file__).parent / "README.md"
BEGIN, END = "<!-- begin: {}, written by run.py -->\n", "<!-- end -->\n"
NUM_SEEDS = 3       # of weights, for bf16

# Beside the shapes of the tests, one that has every block and layer of its release.
GROUPS = {
    "Qwen2.5-VL": RELEASE_SHAPES | {"3B, all layers": shrunk("3B", blocks=1, layers=1)},
    "families": FAMILY_SHAPES,
}
ALL_SHAPES = {name: cfg for shapes in GROUPS.values() for name, cfg in shapes.items()}


def compare(shape: str, cfg: ModelConfig) -> Result:
    """Everything that is measured of one shape."""
    rows = make_rows(cfg)
    model, params = reference_model.build(cfg, random_tensor), port.make_params(cfg)
    ours = port.row_logits(params, cfg, rows)
    alone = [reference_model.run(model, row) for row in rows]
    errors = {kind: relative_error(logits, theirs)
              for kind, logits, (theirs, _) in zip(kinds_of(cfg), ours, alone)}
    ids = [positions for _, positions in alone]
    for side in ("right", "left"):
        logits, positions = reference_model.run_batch(model, rows, side)
        errors[f"mixed, {side}"] = max(map(relative_error, ours, logits))
        ids += positions
    our_ids = [positions_of(cfg, row)[0] for row in rows] * 3
    answers = port.greedy(params, cfg, rows, MAX_TOKENS, END_ID)
    _, leaves = port.gradient(params, cfg, rows, *make_answers(cfg, len(rows)))
    _, their_leaves = reference_model.gradient(model, rows, *make_answers(cfg, len(rows)))
    gradient = leaf_errors(leaves, their_leaves)
    worst = max(gradient, key=gradient.get)
    return Result(
        shape=shape, cfg=cfg, num_parameters=sum(leaf.size for leaf in jax.tree.leaves(params)),
        logits=errors, ids_equal=all(map(np.array_equal, our_ids, ids)),
        greedy_equal=answers == reference_model.greedy(model, rows, MAX_TOKENS, END_ID),
        greedy_tokens=sum(map(len, answers)), gradient=gradient[worst], worst_leaf=worst,
        bf16=[compare_bf16(cfg, functools.partial(random_tensor, seed=seed))
              for seed in range(NUM_SEEDS)])


def compare_bf16(cfg: ModelConfig, weights: Callable[..., np.ndarray],
                 ) -> tuple[float, float, float, float]:
    """(ours, theirs) in bf16 against theirs in float32: root mean squares, then largest."""
    rows = make_rows(cfg)
    half = dataclasses.replace(cfg, dtype="bfloat16")
    exact, _ = reference_model.run_batch(reference_model.build(cfg, weights), rows)
    theirs, _ = reference_model.run_batch(
        reference_model.build(cfg, weights, torch.bfloat16), rows)
    ours = port.row_logits(port.make_params(cfg, weights), half, rows)
    joined, our_joined, their_joined = map(np.concatenate, (exact, ours, theirs))
    return (rms_error(ours, exact), rms_error(theirs, exact),
            relative_error(our_joined, joined), relative_error(their_joined, joined))


def made_with() -> str:
    """Versions, date and device of a run."""
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}"
                         for name in ("jax", "flax", "torch", "transformers", "numpy"))
    day = datetime.datetime.now(datetime.timezone.utc).date()
    return (f"{day}; Python {platform.python_version()}, {versions}; "
            f"ours on {jax.devices()[0].platform}, theirs on cpu ({platform.machine()}).")


def measure(shapes: Iterable[str]) -> list[Result]:
    """One result a shape, and a line on each as it comes."""
    results = []
    for shape in shapes:
        results.append(compare(shape, ALL_SHAPES[shape]))
        print(f"{shape}: logits {max(results[-1].logits.values()):.1e}, gradient "
              f"{results[-1].gradient:.1e}", file=sys.stderr, flush=True)
    return results


def write(group: str, text: str) -> None:
    """Puts the tables between the marks of a group in the README."""
    begin = BEGIN.format(group)
    before, mark, rest = README.read_text(encoding="utf-8").partition(begin)
    if not mark:
        raise ValueError(f"{README} has no line {begin.strip()}")
    README.write_text(before + begin + text + END + rest.partition(END)[2], encoding="utf-8")


def main(argv: list[str] | None = None) -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--group", choices=GROUPS, help="only the tables of these models")
    parser.add_argument("--shapes", nargs="+", choices=ALL_SHAPES, help="only these; print only")
    args = parser.parse_args(argv)
    if args.shapes:
        results = measure(args.shapes)
        print(render(results, made_with()))
    else:
        results = []
        for group in [args.group] if args.group else GROUPS:
            results += (found := measure(GROUPS[group]))
            write(group, render(found, made_with()))
    missed = problems(results)
    for problem in missed:
        print(f"missed: {problem}", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
