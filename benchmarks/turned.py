"""Matrices as files have them, [out, in], beside [in, out], on one core of this machine.

    python benchmarks/turned.py [--rows 1 4 16 64] [--repeats 7]

A step of decoding multiplies a few rows with every matrix of the decoder. Timed are such products
alone, of `rows` rows with as many matrices as fill 256 MB, so that none is in a cache when its turn
comes: `rows @ kernel` as training has it, and what a guard on a CPU does (`models/turned.py`).
Sizes are those of the model of `forward.py` and of the release of 3 billion parameters. Times are
processor seconds of one pinned core, both ways in turns. Prints a line a measurement: name, value
(how many times as fast turned is), unit (with the weights that it reads a second), bar, ok.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence

from bars import Line, report
from clock import load_line, median_seconds, pin_core

pin_core()

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402

from guardjax.models.turned import product_turned  # noqa: E402

SIZES = ((768, 2048), (2048, 768), (2048, 11008), (11008, 2048))    # in, out
BYTES = 256 * 2**20
BAR = 0.95      # turned is what a guard takes for every number of rows: never slower, but for noise


def measurements(rows: Sequence[int], repeats: int) -> Iterator[Line]:
    """Every size with every number of rows."""
    for width, out in SIZES:
        many = BYTES // (4 * width * out)
        keys = jax.random.split(jax.random.key(0), many + 1)
        kernels = [jax.random.normal(key, (width, out)) for key in keys[1:]]
        turned = [jnp.array(kernel.T) for kernel in kernels]
        plain_way = jax.jit(lambda x, kernels: [x @ kernel for kernel in kernels])
        turned_way = jax.jit(lambda x, kernels: [product_turned(x, each) for each in kernels])
        for number in rows:
            x = jax.random.normal(keys[0], (number, width))
            ways = {"plain": lambda: plain_way(x, kernels),
                    "turned": lambda: turned_way(x, turned)}
            jax.block_until_ready([way() for way in ways.values()])     # compiled
            seconds = median_seconds(ways, repeats)
            rate = 4 * width * out * many / seconds["turned"] / 1e9
            yield Line(f"turned/{width}_to_{out}_rows{number}",
                       seconds["plain"] / seconds["turned"], f"x_at_{rate:.1f}_GB/s", least=BAR)


def main() -> int:
    """Runs the benchmark; returns 1 where a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", type=int, default=(1, 4, 16, 64), metavar="N",
                        help="rows that are multiplied (default: 1 4 16 64)")
    parser.add_argument("--repeats", type=int, default=7, help="turns (default: 7)")
    args = parser.parse_args()
    if min(*args.rows, args.repeats) < 1:
        parser.error("rows and repeats must be at least 1")
    print(load_line())
    return report(measurements(args.rows, args.repeats))


if __name__ == "__main__":
    sys.exit(main())
