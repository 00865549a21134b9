"""The measurements of `benchmarks/forward.py`, in the order in which they are printed."""

from __future__ import annotations

import importlib.util
import os
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from bars import Line
from forward_parts import counts
from forward_parts.cases import Model, hundred_million, make_rows, tiny
from forward_parts.clock import Seconds, Timed, best, interleaved, products, reads
from forward_parts.ours import Ours

MAKE = {"tiny": tiny, "100m": hundred_million}
PREFILL_BAR = 0.9       # times as fast as the peer
CEILING_BAR = 0.6       # of what memory can do
# Beside its products a step has norms, softmax, rotary embedding and sampling. Beside weights, keys
# and values its bytes are activations, which every fusion reads and writes anew: few for one row.
FLOPS_BAR, BYTES_BAR, COPIES_BAR = 1.1, 1.2, 0.01


def measurements(names: Sequence[str], batches: Sequence[int],
                 repeats: int) -> Iterator[Line]:
    """Of each model, batch by batch."""
    beside = importlib.util.find_spec("torch") is not None
    if not beside:
        print("forward: torch is not installed (extra `parity`): nothing to compare with, only our "
              "own numbers", flush=True)
    for name in names:
        model = MAKE[name]()
        peer = None
        if beside:
            from forward_parts.peer import Peer
            peer = Peer(model)
        for batch in batches:
            yield from _of_batch(model, peer, batch, repeats)


def _of_batch(model: Model, peer: Any, batch: int, repeats: int) -> Iterator[Line]:
    rows, end = make_rows(model, batch), f"{model.name}_b{batch}"
    ours = Ours(model, rows)
    tokens = ours.decode()
    yield from _counted(model, ours, batch, end)

    things = {"prefill": Timed(lambda _: ours.prefill()), "decode": Timed(lambda _: ours.decode()),
              "step_products": Timed(lambda _: ours.products())}
    ours.products()     # compiled
    if peer is not None:
        theirs, kinds, answers = _fastest(peer, rows)
        things |= {f"peer_{name}": thing for name, thing in theirs.items()}
        same = np.mean(answers == tokens)
        yield Line(f"forward/same_tokens_{end}", same, f"share_of_{kinds}", least=1.0)
    ways = {"reads": reads(), "products": products()}
    things |= {name: timed for way in ways.values() for name, (timed, _) in way.items()}
    seconds = interleaved(things, repeats)
    yield Line(f"forward/load_{end}", os.getloadavg()[0], "runnable")

    steps = model.tokens - 1
    for name, many in (("prefill", 1), ("decode", steps)):
        yield Line(f"forward/{name}_ms_{end}", 1000 * seconds[name].cpu / many, "ms")
        if peer is not None:
            bar = PREFILL_BAR if name == "prefill" else model.decode_bar
            mine, other = seconds[name], seconds[f"peer_{name}"]
            yield Line(f"forward/{name}_{end}", other.cpu / mine.cpu, "x_transformers", least=bar)
            yield Line(f"forward/{name}_wall_{end}", other.wall / mine.wall, "x_transformers")
    if model.name != "tiny":        # which caches hold
        yield from _ceilings(model, batch, end, seconds, ways, seconds["decode"].cpu / steps)


def _counted(model: Model, ours: Ours, batch: int, end: str) -> Iterator[Line]:
    """XLA counts the loop's body once; the first token's logits come before the loop."""
    cfg, length = model.cfg, model.prompt + model.tokens - 1
    program = ours.decode_program()
    cost, head = program.cost_analysis(), cfg.text.vocab_size * cfg.text.hidden_size
    flops = counts.step_flops(cfg, batch, length) + 2 * batch * head
    moved = counts.step_bytes(cfg, batch, length) + 4 * head
    copied = counts.loop_copies(program, batch) / (4 * counts.kv_numbers(cfg, batch, length))
    yield Line(f"forward/flops_{end}", cost["flops"] / flops, "x_analytic", most=FLOPS_BAR)
    yield Line(f"forward/bytes_{end}", cost["bytes accessed"] / moved, "x_analytic",
               most=BYTES_BAR if batch == 1 else None)
    yield Line(f"forward/copies_{end}", copied, "x_keys_and_values", most=COPIES_BAR)
    yield Line(f"forward/programs_{end}", ours.num_programs(), "programs", most=2)


def _fastest(peer: Any, rows: list) -> tuple[dict[str, Timed], str, np.ndarray]:
    """The peer's fastest prefill and decoding, what they are, and its tokens [B, T]."""
    from forward_parts.peer import ATTENTION, CACHES, fresh
    inputs, starts, answers = peer.inputs(rows), {}, {}
    kinds = [(attention, cache) for attention in ATTENTION for cache in CACHES]
    prefills = {kind: Timed(lambda _, kind=kind: peer.prefill(inputs, *kind)[1]) for kind in kinds}
    decodes = {kind: Timed(lambda start, kind=kind: peer.decode(start, kind[0]),
                           lambda kind=kind: fresh(starts[kind])) for kind in kinds}
    prefills[kinds[0]].run(None)        # not the first to touch the weights
    spent: dict[str, dict] = {"prefill": {}, "decode": {}}
    for kind in kinds:
        for name, things, results in (("prefill", prefills, starts), ("decode", decodes, answers)):
            prepared, begin = things[kind].prepare(), time.process_time()
            results[kind] = things[kind].run(prepared)
            spent[name][kind] = time.process_time() - begin
    first, second = (min(times, key=times.__getitem__) for times in spent.values())
    return ({"prefill": prefills[first], "decode": decodes[second]},
            f"{'_'.join(first)}_and_{'_'.join(second)}", answers[second])


def _ceilings(model: Model, batch: int, end: str, seconds: dict[str, Seconds], ways: dict,
              step: float) -> Iterator[Line]:
    """How near a step of decoding comes to what memory and arithmetic allow."""
    length = model.prompt + model.tokens - 1
    read_by, bandwidth = best(ways["reads"], seconds)
    multiplied_by, rate = best(ways["products"], seconds)
    reading = counts.step_bytes(model.cfg, batch, length) / bandwidth
    multiplying = counts.step_flops(model.cfg, batch, length) / rate
    yield Line(f"forward/memory_{end}", bandwidth / 1e9, f"GB/s_{read_by}")
    yield Line(f"forward/arithmetic_{end}", rate / 1e9, f"GFLOP/s_{multiplied_by}")
    yield Line(f"forward/bandwidth_{end}", reading / step, "x_measured", least=CEILING_BAR)
    only_read = {name: way for name, way in ways["reads"].items() if name != "numpy_copy"}
    name, rate = best(only_read, seconds)
    yield Line(f"forward/reading_{end}", reading * bandwidth / rate / step,
               f"x_{rate / 1e9:.1f}_GB/s_{name}")
    yield floor(end, reading, multiplying, step)
    yield Line(f"forward/products_{end}", seconds["step_products"].cpu / step, "x_step")


def floor(end: str, reading: float, multiplying: float, step: float) -> Line:
    """How near a step comes to the least that it can take: reading or multiplying, all else free.

    The unit says which it is, and what share of the bandwidth a step at the floor would use.
    """
    least = max(reading, multiplying)
    bound = "arithmetic" if multiplying > reading else "bandwidth"
    return Line(f"forward/floor_{end}", least / step,
                f"x_{bound}_which_allows_{reading / least:.2f}_of_bandwidth")
