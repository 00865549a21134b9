"""What judging one picture under several policies costs, picture and policies encoded once each.

    python benchmarks/scoring.py [--policies 5] [--image 1024] [--policy 256]

The tiny model with random weights gives P(unsafe) of one picture under N policies, by the program
that `guardjax eval --scoring probability` runs: tower, picture, policies that branch from it, no
decoding. Times are of one pinned core, in turns, with

* `plain`: one ordinary row with as many tokens in all, tower included: the token-count floor. Its
  attention is larger, as its tokens all see each other, so there is a second, stricter floor:
* `share`: the tower, and the decoder's time for one policy times the share of tokens, N policies
  over one;
* `loop`: N separate judgments, each of which encodes the picture anew.

As the tower takes most of the time of a large picture, the decoder is also timed alone, with the
features given. FLOPs are XLA's own count. Prints lines: name, value, unit, bar, ok.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator

from bars import Line, report
from clock import load_line, median_seconds, pin_core

pin_core()

import jax  # noqa: E402
import numpy as np  # noqa: E402

import guardjax.models as models  # noqa: E402
from guardjax import layout  # noqa: E402
from guardjax.models.init import Params  # noqa: E402
from guardjax.models.tiny import tiny_config  # noqa: E402
from guardjax.rl.logprobs import next_token_logits  # noqa: E402
from guardjax.rl.model_fns import bind, encode_vision  # noqa: E402
from guardjax.types import PromptBatch, Segment, VisionInputs  # noqa: E402

FLOOR_BAR, ONE_BAR, LOOP_BAR = 1.15, 2.0, 2.0
CFG = tiny_config()
FNS = bind(models, CFG)


def picture(units: int) -> VisionInputs:
    """A square picture of so many merged units, of noise.

    Raises:
      ValueError: `units` is no square.
    """
    merge, side = CFG.vision.spatial_merge_size, round(units**0.5)
    if side**2 != units:
        raise ValueError(f"--image {units} is no square number of merged units; try 1024 or 256")
    grid = (1, side * merge, side * merge)
    placed = layout.vision_layout([grid], window_units=CFG.vision.window_units, merge=merge)
    patches = np.random.default_rng(0).normal(size=(units * merge**2, CFG.vision.patch_dim))
    return layout.pack_vision([placed], [patches.astype(np.float32)], placed.num_slots,
                              CFG.vision.patch_dim)


def words(lead: tuple[int, ...], tokens: int, start: int) -> Segment:
    """Text that begins at a position."""
    shape = (*lead, tokens)
    ids = np.random.default_rng(1).integers(0, 900, shape).astype(np.int32)
    places = np.broadcast_to(start + np.arange(tokens, dtype=np.int32)[:, None], (*shape, 3))
    return Segment(ids, places, np.ones(shape, bool))


def prompts(units: int, policy: int, number: int, branched: bool) -> PromptBatch:
    """One picture and `number` policies: branches of it, or one row of all their tokens."""
    side = round(units**0.5)
    where = np.indices((1, side, side)).reshape(3, -1).T.astype(np.int32)
    shown = Segment(np.full((1, units), CFG.image_token_id, np.int32), where[None],
                    np.ones((1, units), bool), np.arange(units, dtype=np.int32)[None])
    vision = picture(units)
    if branched:
        end = words((1, number), policy, side)
        return PromptBatch(end, np.full((1, number), side + policy, np.int32), vision, shown)
    text = words((1,), number * policy, side)
    index = np.full(text.tokens.shape, -1, np.int32)
    join = lambda one, other: np.concatenate([one, other], axis=1)
    row = Segment(join(shown.tokens, text.tokens), join(shown.positions, text.positions),
                  join(shown.mask, text.mask), join(shown.feature_index, index))
    return PromptBatch(row, np.array([side + number * policy], np.int32), vision)


@jax.jit
def judge(params: Params, batch: PromptBatch) -> jax.Array:
    """Logits of the answer's first token, [B, V]."""
    return next_token_logits(FNS, params, batch)


@jax.jit
def read(params: Params, batch: PromptBatch, features: jax.Array) -> jax.Array:
    """The same of pictures that are encoded already."""
    return next_token_logits(FNS, params, batch, features=features)


@jax.jit
def see(params: Params, batch: PromptBatch) -> jax.Array:
    """The tower alone."""
    return encode_vision(FNS, params, batch)


def measurements(args: argparse.Namespace) -> Iterator[Line]:
    """Times of the whole, times of the decoder alone, then FLOPs."""
    params = models.init_params(CFG, jax.random.key(0))
    number, size = args.policies, (args.image, args.policy)
    branched, plain = (prompts(*size, number, kind) for kind in (True, False))
    one = prompts(*size, 1, False)
    features = see(params, one)
    ways: dict[str, Callable[[], object]] = {
        "branched": lambda: judge(params, branched), "plain": lambda: judge(params, plain),
        "one": lambda: judge(params, one), "tower": lambda: see(params, one),
        "loop": lambda: [judge(params, one) for _ in range(number)],
        "read branched": lambda: read(params, branched, features),
        "read plain": lambda: read(params, plain, features),
        "read one": lambda: read(params, one, features)}
    for way in ways.values():
        jax.block_until_ready(way())
    seconds = median_seconds(ways, args.repeats)
    share = (args.image + number * args.policy) / (args.image + args.policy)
    floor = seconds["tower"] + share * seconds["read one"]

    yield Line("scoring/images_per_second", 1 / seconds["branched"], "1/s")
    yield Line("scoring/images_per_second_loop", 1 / seconds["loop"], "1/s")
    yield Line("scoring/against_loop", seconds["loop"] / seconds["branched"], "x_faster",
               least=LOOP_BAR)
    yield Line("scoring/time_plain", seconds["branched"] / seconds["plain"], "x_plain_tokens",
               most=FLOOR_BAR)
    yield Line("scoring/time_share", seconds["branched"] / floor, "x_token_share", most=FLOOR_BAR)
    yield Line("scoring/time_one", seconds["branched"] / seconds["one"], "x_one_policy",
               most=ONE_BAR)
    yield Line("scoring/decoder_time_plain", seconds["read branched"] / seconds["read plain"],
               "x_plain_tokens", most=FLOOR_BAR)
    yield Line("scoring/decoder_time_share",
               seconds["read branched"] / (share * seconds["read one"]), "x_token_share",
               most=FLOOR_BAR)
    yield Line("scoring/decoder_time_one", seconds["read branched"] / seconds["read one"],
               "x_one_policy", most=ONE_BAR)

    def flops(program: Callable[..., object], *inputs: object) -> float:
        return program.lower(params, *inputs).cost_analysis()["flops"]

    by_tokens = flops(see, one) + share * flops(read, one, features)
    yield Line("scoring/flops", flops(judge, branched) / by_tokens, "x_token_share",
               most=FLOOR_BAR)
    tower = flops(judge, branched) - flops(read, branched, features)
    yield Line("scoring/tower_flops", tower / flops(see, one), "x_one_picture", 0.99, 1.01)


def main() -> int:
    """Runs the benchmark; returns 1 outside a bar."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policies", type=int, default=5, help="N (default: 5)")
    parser.add_argument("--image", type=int, default=1024, help="image tokens (default: 1024)")
    parser.add_argument("--policy", type=int, default=256, help="policy tokens (default: 256)")
    parser.add_argument("--repeats", type=int, default=7, help="of the times (default: 7)")
    status = report(measurements(parser.parse_args()))
    print(load_line())
    return status


if __name__ == "__main__":
    sys.exit(main())
