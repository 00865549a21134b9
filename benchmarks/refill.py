"""Tokens per second of decoding in slots that are refilled, against batches that wait.

    python benchmarks/refill.py [--prompts 32] [--slots 16] [--longest 512] [--repeats 7]

The tiny guard's architecture answers 8 times to each prompt. The lengths are drawn once between
16 and `longest`, by a fixed seed, and forced on both ways, which decode the same tokens. A static
batch has as many answers as there are slots and is done when its longest is. Each way is a program.
Prints the machine's load and one line: name, value, unit, bar, ok.

A step of either decodes S answers. What the steps alone would give is printed beside it: those of
the static batches' longest over those until the last slot is done, the last answers, for which
there is no next one, included. What is missing from it is the time of refilling, and that each slot
reads its prompt's keys for itself.
"""

from __future__ import annotations

import argparse
import heapq
import sys
from collections.abc import Callable

from bars import Line, report
from clock import REPEATS, load_line, median_seconds, pin_core

pin_core()

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402

import guardjax.models as models  # noqa: E402
from guardjax.models.init import init_params  # noqa: E402
from guardjax.models.tiny import tiny_config  # noqa: E402
from guardjax.rl.model_fns import bind  # noqa: E402
from guardjax.rl.sampling import SamplingParams, generate  # noqa: E402
from guardjax.rl.transform import make_transform  # noqa: E402
from guardjax.types import PromptBatch, Samples, Segment  # noqa: E402

BAR = 1.5
GROUP, SHORTEST = 8, 16


def random_prompts(num: int, tokens: int, vocab: int) -> PromptBatch:
    """Prompts of words only, none padded."""
    rng = np.random.default_rng(0)
    words = rng.integers(0, vocab, (num, tokens)).astype(np.int32)
    positions = np.broadcast_to(np.arange(tokens, dtype=np.int32)[:, None], (num, tokens, 3))
    segment = Segment(words, positions, np.ones((num, tokens), bool))
    return jax.tree.map(jnp.asarray, PromptBatch(segment, np.full(num, tokens, np.int32)))


def sampler(longest: int, slots: int) -> Callable[..., Samples]:
    """The jitted `(params, prompts, example_index, limit) -> Samples`; only the limit ends."""
    cfg = tiny_config()
    fns = bind(models, cfg)
    sampling = SamplingParams(GROUP, longest, cfg.text.eos_token_id, cfg.text.pad_token_id,
                              slots=slots)
    transform = make_transform(cfg.text.vocab_size, blocked=[cfg.text.eos_token_id])
    return jax.jit(lambda params, prompts, index, limit: generate(
        fns, params, prompts, jax.random.key(1), sampling, transform, example_index=index,
        limit=limit))


def steps_alone(limit: np.ndarray, slots: int) -> float:
    """Steps of static batches over steps with refill, for answers of `limit` [B, G] tokens.

    The first token of an answer comes with its prompt and takes no step.
    """
    steps = limit.reshape(-1) - 1
    busy = [0] * slots      # until when
    for each in steps:
        heapq.heapreplace(busy, busy[0] + int(each))
    return steps.reshape(-1, slots).max(axis=1).sum() / max(busy)


def main() -> int:
    """Runs the benchmark; returns 1 below the bar."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=32, help="B (default: 32)")
    parser.add_argument("--prompt", type=int, default=64, help="P, prompt tokens (default: 64)")
    parser.add_argument("--slots", type=int, default=16, help="S, a multiple of 8 (default: 16)")
    parser.add_argument("--longest", type=int, default=512, help="T (default: 512)")
    parser.add_argument("--repeats", type=int, default=REPEATS, help=f"(default: {REPEATS})")
    args = parser.parse_args()
    some = args.slots // GROUP
    if args.slots % GROUP or not some or args.prompts % some:
        parser.error(f"--slots {args.slots} must be a multiple of {GROUP}, and --prompts "
                     f"{args.prompts} fill batches of as many answers")
    prompts = random_prompts(args.prompts, args.prompt, 900)
    index = jnp.arange(args.prompts, dtype=jnp.int32)
    limit = jnp.asarray(np.random.default_rng(0).integers(
        SHORTEST, args.longest + 1, (args.prompts, GROUP)).astype(np.int32))
    together, in_slots = sampler(args.longest, 0), sampler(args.longest, args.slots)
    batches = [jax.tree.map(lambda leaf, at=at: leaf[at:at + some], (prompts, index, limit))
               for at in range(0, args.prompts, some)]
    params = init_params(tiny_config(), jax.random.key(0))
    ways = {"static": lambda: [together(params, *batch).tokens for batch in batches],
            "refill": lambda: in_slots(params, prompts, index, limit).tokens}
    differ = np.concatenate(ways["static"]()) != np.asarray(ways["refill"]())   # compiles them
    if differ.any():        # sums in another order may tip a draw, but not many
        print(f"# {differ.mean():.2g} of the tokens differ between the two ways")
    seconds = median_seconds(ways, args.repeats)
    value, tokens = seconds["static"] / seconds["refill"], int(limit.sum())
    print(f"# {tokens} tokens, {tokens / seconds['static']:.0f} a second in static batches, "
          f"{tokens / seconds['refill']:.0f} with refill; the steps alone give "
          f"{steps_alone(np.asarray(limit), args.slots):.3f}")
    print(load_line())
    return report([Line("refill/tokens_per_second", value, "x_static_batch", least=BAR)])


if __name__ == "__main__":
    sys.exit(main())
