"""What the compiled program does, read from the compiler: numbers that no noise can touch."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

import jax

from guardjax.models.config import ModelConfig

_BYTES = {"f32": 4, "s32": 4, "u32": 4, "bf16": 2, "f16": 2, "pred": 1}
_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) \(.*\{$")
_CALLED = re.compile(r"(?:calls|to_apply|body|condition)=%?([\w.\-]+)")
_COPY = re.compile(r"= (\w+)\[([\d,]*)\]\S* copy\(")


def decoder_weights(cfg: ModelConfig) -> int:
    """Numbers in the matrices of decoder and head: each is read once a step."""
    text = cfg.text
    attention = 2 * text.hidden_size * (text.num_attention_heads + text.num_key_value_heads)
    layer = attention * text.head_dim + 3 * text.hidden_size * text.intermediate_size
    return text.num_hidden_layers * layer + text.vocab_size * text.hidden_size


def kv_numbers(cfg: ModelConfig, batch: int, length: int) -> int:
    """Numbers in the keys and values of `length` tokens of every row."""
    text = cfg.text
    return 2 * text.num_hidden_layers * batch * length * text.num_key_value_heads * text.head_dim


def step_flops(cfg: ModelConfig, batch: int, length: int) -> int:
    """Products of one step of decoding with `length` places for keys, prompt and answer."""
    text = cfg.text
    scores = 4 * text.num_hidden_layers * text.num_attention_heads * text.head_dim * length
    return batch * (2 * decoder_weights(cfg) + scores)


def step_bytes(cfg: ModelConfig, batch: int, length: int, item: int = 4) -> int:
    """What one step has to read: weights and keys and values, each once, of `item` bytes."""
    return item * (decoder_weights(cfg) + kv_numbers(cfg, batch, length))


def prefill_flops(cfg: ModelConfig, batch: int, prompt: int, patches: int) -> int:
    """Products of prefill, of which the head is asked for the last token alone.

    Of the scores of words those that a causal mask hides are not counted.
    """
    text, vision = cfg.text, cfg.vision
    head = text.vocab_size * text.hidden_size
    scores = 2 * text.num_hidden_layers * text.num_attention_heads * text.head_dim * prompt**2
    width, unit = vision.hidden_size, vision.hidden_size * vision.spatial_merge_size**2
    block = 4 * width**2 + 3 * width * vision.intermediate_size
    seen = sum(patches if index in vision.full_blocks else min(patches, vision.window_patches)
               for index in range(vision.depth))
    tower = (2 * patches * (vision.depth * block + width * vision.patch_dim)
             + 4 * patches * width * seen
             + 2 * patches // vision.spatial_merge_size**2 * unit * (unit + text.hidden_size))
    return batch * (2 * prompt * (decoder_weights(cfg) - head) + 2 * head + scores + tower)


def loop_copies(program: jax.stages.Compiled, rows: int) -> int:
    """Bytes that are copied, to move or to transpose them, in one turn of the program's loop.

    Inside a fusion the tokens of a step, [rows, F] or [F, rows], do not count: a turned product
    takes them as columns, which the fusion that makes them writes (`guardjax.models.turned`).
    """
    text = program.as_text()
    computations: dict[str, list[str]] = {}
    for line in text.splitlines():
        if header := _COMPUTATION.match(line):
            lines = computations.setdefault(header[1], [])
        elif computations:
            lines.append(line)
    bodies = re.findall(r" while\(.*body=%?([\w.\-]+)", text)
    if len(bodies) != 1:
        raise ValueError(f"the program has {len(bodies)} loops, and decoding is one")
    copies = [(name, kind, [int(n) for n in shape.split(",") if n])
              for name, line in _reached(computations, bodies[0])
              for kind, shape in _COPY.findall(line)]
    return sum(_BYTES[kind] * math.prod(shape) for name, kind, shape in copies
               if not (name.startswith("fused_") and len(shape) == 2 and rows in shape))


def _reached(computations: dict[str, list[str]], start: str) -> Iterator[tuple[str, str]]:
    """(computation, line) of a computation and of all that it calls."""
    seen, waiting = set(), [start]
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        for line in computations[name]:
            yield name, line
            waiting += _CALLED.findall(line)
