"""One whole step of GRPO beside TRL's GRPOTrainer: rollout, log-probabilities, update.

    python benchmarks/step.py --peer PYTHON [--cases guard short ...] [--turns 7]

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
(Linux only). By default 7 turns; `short_vocab` 2 and `guard_vocab` 1, in which TRL's first step
counts, as one takes more than a minute.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys

from clock import load_line, pin_core

NAMES = ("guard", "short", "short_vocab", "guard_vocab")
PEER = "GUARDJAX_TRL_PYTHON"
CHECK = "import datasets, torch, transformers, trl"


def main() -> int:
    """Runs the benchmark; returns 1 where a bar is missed or was not measured."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", metavar="PYTHON", default=os.environ.get(PEER),
                        help=f"of an environment with TRL (default: ${PEER})")
    parser.add_argument("--cases", nargs="+", default=NAMES, choices=NAMES)
    parser.add_argument("--turns", type=int, help="of each case (default: see above)")
    args = parser.parse_args()
    if args.turns is not None and args.turns < 1:
        parser.error(f"--turns is {args.turns}; it must be at least 1")
    if args.peer:
        _check_peer(parser, args.peer)
    else:
        print(f"# no --peer and no ${PEER}: nothing to compare with, only our own numbers; "
              "--help says how to make an environment with TRL")
    os.environ["JAX_PLATFORMS"] = "cpu"
    pin_core()
    from step_parts.cases import CASES
    from step_parts.measure import of_case

    failed = False
    for name in args.cases:
        for line in of_case(CASES[name], args.peer or None, args.turns or CASES[name].turns):
            print(line, flush=True)
            failed |= not line.ok
        print(load_line(), flush=True)
    return int(failed)


def _check_peer(parser: argparse.ArgumentParser, python: str) -> None:
    """Ends with a message where `python` cannot be the peer, before anything is timed."""
    try:
        found = subprocess.run([python, "-c", CHECK], capture_output=True, text=True, check=False)
    except OSError as error:
        parser.error(f"--peer {python} cannot be run: {error}")
    if found.returncode:
        parser.error(f"--peer {python} has no TRL: {found.stderr.strip().splitlines()[-1]}; "
                     "--help says how to make an environment that has")


if __name__ == "__main__":
    sys.exit(main())
