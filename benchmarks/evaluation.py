"""Evaluation of the shipped guard over the whole test split of the policy world, in seconds.

    python benchmarks/evaluation.py [--pairs 500]

Every picture of the split under four test policies, answered in words, and all metrics with their
intervals: from the reading of the model to the last number, compiling included (programs that were
compiled before and kept on disk are read). The world is built before the clock starts. Wall time on
as many cores as the process may use, at most two; the bar is for two. Prints a line a measurement:
name, value, unit, bar, ok.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator

from bars import Line, report

CORES, LIMIT = 2, 180.0


def measurements(pairs: int) -> Iterator[Line]:
    """The lines, as they are measured."""
    from guardjax.cache_dir import cache_dir
    from guardjax.cli import compose, measure
    from guardjax.eval.baselines import always
    from guardjax.eval.guard import Guard
    from guardjax.eval.harness import ask_batches, policy_questions
    from guardjax.eval.summary import summarise
    from guardjax.train.compilation import enable_compile_cache
    from guardjax.world import builder

    sizes = {"test": builder.DEFAULT_SIZES["test"]}
    world = builder.build(cache_dir() / "world", sizes)
    records = measure.test_records(world, "test", pairs)
    questions = policy_questions(records, compose.policy_splits(), "test")
    enable_compile_cache()
    wall, cpu = time.monotonic(), time.process_time()
    guard = Guard.load(compose.model_dir("guard"))
    rows = [row for batch in ask_batches(guard, questions, variant="guard") for row in batch]
    answered = time.monotonic()
    summarise([*always(rows, "safe"), *always(rows, "unsafe"), *rows], per_seed=False)
    seconds = time.monotonic() - wall
    whole = pairs >= sizes["test"]
    yield Line("evaluation/prompts", len(rows), "prompts")
    yield Line("evaluation/cores", len(os.sched_getaffinity(0)), "cores")
    yield Line("evaluation/answers", answered - wall, "s")
    yield Line("evaluation/cpu", time.process_time() - cpu, "s")
    yield Line("evaluation/test_split", seconds, "s", most=LIMIT if whole else None)


def main() -> int:
    """Runs the benchmark; returns 1 outside the bar."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pairs", type=int, default=500, help="edited pairs (default: all 500)")
    args = parser.parse_args()
    # Before JAX starts its threads.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    return report(measurements(args.pairs))


if __name__ == "__main__":
    sys.exit(main())
