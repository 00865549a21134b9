"""One whole step of GRPO beside TRL's GRPOTrainer: rollout, log-probabilities, update.

    python benchmarks/step.py --peer PYTHON [--cases guard short ...] [--turns 7]
    python benchmarks/step.py --device gpu --peer PYTHON [--turns 7]

PYTHON is that of an environment with TRL (1.16), by default $GUARDJAX_TRL_PYTHON. Without one only
our own numbers are printed, and what is held to TRL is not measured, which is not ok:

    python3 -m venv trl && trl/bin/pip install 'trl==1.16.*' torch pillow
    python benchmarks/step.py --peer trl/bin/python

Both sides read one folder: weights in float32 (the shipped base; `_vocab` has 151,936 words, as the
releases), tokenizer, processor, pictures. A step answers 2 prompts (of `guard_vocab` 1) 8 times, by
sampling at temperature 1, with exactly 48 tokens: the end token cannot be drawn. `guard` has 768
prompt tokens, 256 of them a picture of 256 x 256 pixels; `short` has 96, 16 of them a picture.
Then one update of all weights, tower included: loss "grpo", no reference, AdamW, gradient norm 1.
Both get the same rewards, by place, and make arrays of pictures and words in the step; TRL's time
leaves out how it gets rows from its data set. That prompts, token by token, and the numbers of
tokens are the same is checked in every turn.

TRL: float32, scaled-dot-product attention, dynamic cache, one batch. Small vocabulary: without
gradient checkpointing, as that is faster; `_vocab`: with it, TRL's default, which takes less memory
and a small part of a time that its head dominates. Ours: the defaults of `guardjax train`.

Each side is a process pinned to the same core, with one thread for arithmetic; they take turns.
Seconds are of the processor, medians: what else the machine does adds to wall time, whose ratio has
no bar. Memory is the peak of the resident set in a step, over the resident set after imports and
weights: gradients, moments and activations, without what compiling takes before the first turn
(Linux only). By default 7 turns; `_vocab` 1, in which TRL's first step counts, as one takes from
half a minute to one and a half, and a second was as long.

With `--device gpu`: a decoder of Qwen2.5-VL-3B's shape, random frozen weights in bfloat16, adapters
of rank 16, 8 prompts of 768 words with 8 answers of 64 tokens. A step of decoding is held to what
it must read (weights, and each key and value once) at the bandwidth that is measured beside it, an
update to its products (what is computed again does not count) at the measured rate of a matrix
product. Beside it the same by transformers, PEFT and a loop by hand, with PYTHON's torch (and
peft). `--shape tiny` shows on any machine that all of it runs; it is held to nothing.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable

from bars import Line, report
from clock import load_line, pin_core

NAMES = ("guard", "short", "short_vocab", "guard_vocab")
PEER = "GUARDJAX_TRL_PYTHON"
NEEDS = {"cpu": ("TRL", "import datasets, torch, transformers, trl"),
         "gpu": ("PEFT", "import peft, torch, transformers")}


def main() -> int:
    """Runs the benchmark; returns 1 where a bar is missed or was not measured."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", metavar="PYTHON", default=os.environ.get(PEER),
                        help=f"of an environment with TRL (default: ${PEER})")
    parser.add_argument("--cases", nargs="+", default=NAMES, choices=NAMES)
    parser.add_argument("--turns", type=int, help="of each case (default: see above)")
    parser.add_argument("--device", choices=tuple(NEEDS), default="cpu")
    parser.add_argument("--shape", choices=("3b", "tiny"), default="3b",
                        help="with --device gpu (default: 3b)")
    args = parser.parse_args()
    # Workers start in another folder.
    args.peer = os.path.abspath(shutil.which(args.peer) or args.peer) if args.peer else None
    if args.turns is not None and args.turns < 1:
        parser.error(f"--turns is {args.turns}; it must be at least 1")
    if args.peer:
        _check_peer(parser, args.peer, *NEEDS[args.device])
    else:
        print(f"# no --peer and no ${PEER}: nothing to compare with, only our own numbers; "
              "--help says how to make an environment with TRL")
    if args.device == "gpu":
        _check_gpu(parser, args.shape)
        from step_parts.device_measure import of_shape
        from step_parts.device_shapes import SHAPES

        return _report(of_shape(SHAPES[args.shape], args.peer, args.turns or 7,
                                held=args.shape == "3b"))
    os.environ["JAX_PLATFORMS"] = "cpu"
    pin_core()
    from step_parts.cases import CASES
    from step_parts.measure import of_case

    return max(_report(of_case(CASES[name], args.peer, args.turns or CASES[name].turns))
               for name in args.cases)


def _report(lines: Iterable[Line]) -> int:
    """Prints them, and the load; 1 where one is not ok."""
    status = report(lines)
    print(load_line(), flush=True)
    return status


def _check_gpu(parser: argparse.ArgumentParser, shape: str) -> None:
    """Ends with a message where there is no GPU; asked of a process that lets go of it again."""
    asked = subprocess.run([sys.executable, "-c", "import jax; print(jax.default_backend())"],
                           capture_output=True, text=True, check=False)
    found = asked.stdout.strip() or asked.stderr.strip()
    if shape != "tiny" and found != "gpu":
        parser.error(f"--device gpu: JAX has no GPU here but {found!r} (JAX_PLATFORMS is "
                     f"{os.environ.get('JAX_PLATFORMS', '')!r}); --shape tiny runs on any machine")


def _check_peer(parser: argparse.ArgumentParser, python: str, name: str, check: str) -> None:
    """Ends with a message where `python` cannot be the peer, before anything is timed."""
    try:
        found = subprocess.run([python, "-c", check], capture_output=True, text=True, check=False)
    except OSError as error:
        parser.error(f"--peer {python} cannot be run: {error}")
    if found.returncode:
        parser.error(f"--peer {python} has no {name}: {found.stderr.strip().splitlines()[-1]}; "
                     "--help says how to make an environment that has")


if __name__ == "__main__":
    sys.exit(main())
