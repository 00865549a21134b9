"""Prefill and decoding beside Hugging Face transformers, on one core of this machine.

    python benchmarks/forward.py [--models tiny 100m] [--batches 1 16] [--repeats 7]
    python benchmarks/forward.py --device gpu [--shape 3b] [--batches 1 16] [--repeats 7]

The shipped base and a random model of 100 million parameters, in float32, one core and one thread
each, both sides in one process and in turn. Prefill goes from tokens and patches to the logits of
the next token and the cache: positions and window order are worked out by either side itself, the
picture is part of the prompt. Decoding is greedy, with the product's own sampler on our side, and
of transformers the fastest of eager and SDPA attention, dynamic and static cache.

Times are processor seconds, medians: on a busy machine a neighbour adds to wall time, which is
printed without a bar, but still takes its share of memory bandwidth and of caches. Ceilings are
measured in the same turns: bandwidth by the fastest of three ways to go through large arrays,
arithmetic by the faster of two matrix products. A step is held to bandwidth. With 16 rows 60 % of
it would take nearly all the arithmetic of the core, and this bar is missed there. Lines without a
bar say why: `reading`, the share of what the core reads at most where it writes nothing, as a step
does, `floor`, the share of the least time that arithmetic and bandwidth leave to a step, and
`products`, the share of the step that its matrix products take as a program of their own.

With `--device` nothing is compared: the release of 3 billion parameters (`--shape tiny` is for a
trial) with random weights in bfloat16 on that device, prefill as a share of its fastest matrix
product and decoding as a share of its bandwidth (`forward_parts/device.py`).

Operations, bytes, copies and the number of programs are XLA's and the same every time. Prints a
line a measurement: name, value, unit, bar, ok. Where torch is not installed (extra `parity`) that
is said in one line, and only our own numbers follow.
"""

from __future__ import annotations

import argparse
import os
import sys

from bars import report

ONE_THREAD = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
MODELS = ("tiny", "100m")


def hold_to_one_core() -> None:
    """Pins this process and tells JAX; before JAX is imported, which reads both as it starts."""
    if hasattr(os, "sched_setaffinity"):        # Linux alone has it; elsewhere threads are one
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {ONE_THREAD}".strip()
    os.environ["JAX_PLATFORMS"] = "cpu"


def main() -> int:
    """Runs the benchmark; returns 1 where a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=MODELS, choices=MODELS)
    parser.add_argument("--device", choices=("gpu", "cpu"), help="against this device's ceilings")
    parser.add_argument("--shape", default="3b", choices=("3b", "tiny"), help="with --device")
    parser.add_argument("--batches", nargs="+", type=int, default=(1, 16), metavar="B",
                        help="rows (default: 1 16)")
    parser.add_argument("--repeats", type=int, default=7, help="turns (default: 7)")
    args = parser.parse_args()
    if min(*args.batches, args.repeats) < 1:
        parser.error("batches and repeats must be at least 1")
    if args.device:
        from forward_parts.device import NoDeviceError, measurements
        try:
            return report(measurements(args.device, args.shape, args.batches, args.repeats))
        except NoDeviceError as error:
            parser.error(str(error))
    hold_to_one_core()
    from forward_parts.measure import measurements as beside_transformers

    return report(beside_transformers(args.models, args.batches, args.repeats))


if __name__ == "__main__":
    sys.exit(main())
