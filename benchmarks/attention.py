"""What storing a prompt once saves, against repeating it before each of its G answers.

    python benchmarks/attention.py [--prompt 1024] [--answers 8] [--tokens 16]

Both ways are programs of the tiny guard's sizes, compiled for this machine and not run: a gradient
through its decoder, and one step of a layer's attention in decoding. Floating point operations,
bytes read and written and temporary memory are XLA's own figures for the compiled program, so they
are the same every time. Prints a line a measurement: name, value (the share of what repeating
takes), unit, bar, ok.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Iterator

import jax
import jax.numpy as jnp
from bars import Line, report

import guardjax.models as models
from guardjax.models.attention import KeyPart, segment_attention
from guardjax.models.config import ModelConfig
from guardjax.models.init import Params, param_shapes
from guardjax.models.tiny import tiny_config
from guardjax.types import Segment

BATCH = 2               # prompts
TRAIN_FACTOR = 1.25     # training may take so many times the share of tokens
DECODE_EXTRA = 0.2      # decoding that much more: an answer's scores are its own either way


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Prompts of `prompt` tokens and to each `answers` answers of `tokens`."""

    prompt: int
    answers: int
    tokens: int

    @property
    def share(self) -> float:
        """Tokens with the prompt once, over tokens with it before each answer."""
        together = self.prompt + self.answers * self.tokens
        return together / (self.answers * (self.prompt + self.tokens))


def segment(lead: tuple[int, ...], tokens: int) -> Segment:
    """An abstract segment, lead + [tokens]."""
    shape = (*lead, tokens)
    return Segment(jax.ShapeDtypeStruct(shape, jnp.int32),
                   jax.ShapeDtypeStruct((*shape, 3), jnp.int32),
                   jax.ShapeDtypeStruct(shape, jnp.bool_))


def training(cfg: ModelConfig, sizes: Sizes, shared: bool) -> jax.stages.Compiled:
    """The gradient of a loss over the answers' hidden states."""
    prompt, group, tokens = sizes.prompt, sizes.answers, sizes.tokens
    segments = ((segment((BATCH,), prompt), segment((BATCH, group), tokens)) if shared else
                (segment((BATCH * group,), prompt + tokens),))

    def loss(params: Params, segments: tuple[Segment, ...]) -> jax.Array:
        hidden, _ = models.forward(params, cfg, segments)
        return jnp.square(hidden[-1][..., -tokens:, :]).sum()

    return jax.jit(jax.grad(loss)).lower(param_shapes(cfg), segments).compile()


def decoding(cfg: ModelConfig, sizes: Sizes, shared: bool) -> jax.stages.Compiled:
    """One layer's attention of one step of every answer, without the layer's weights."""
    text = cfg.text
    heads, size = text.num_key_value_heads, text.head_dim
    lead = (BATCH, sizes.answers) if shared else (BATCH * sizes.answers,)

    def keys_and_values(lead: tuple[int, ...], tokens: int) -> KeyPart:
        array = jax.ShapeDtypeStruct((*lead, heads, tokens, size), jnp.float32)
        return KeyPart(array, array, jax.ShapeDtypeStruct((*lead, 1, tokens), jnp.bool_))

    queries = jax.ShapeDtypeStruct((*lead, heads, text.num_attention_heads // heads, 1, size),
                                   jnp.float32)
    parts = (keys_and_values(lead[:1], sizes.prompt), keys_and_values(lead, sizes.tokens))
    attention = jax.jit(segment_attention, static_argnames="scale")
    return attention.lower(queries, parts, scale=size**-0.5).compile()


def figures(program: jax.stages.Compiled) -> dict[str, float]:
    """XLA's account of a compiled program."""
    cost, memory = program.cost_analysis(), program.memory_analysis()
    return {"flops": cost["flops"], "bytes": cost["bytes accessed"],
            "temporary_bytes": memory.temp_size_in_bytes}


def measurements(sizes: Sizes) -> Iterator[Line]:
    """Of training, then of decoding."""
    cfg = tiny_config()
    for name, make, bar, kinds in (
            ("train", training, TRAIN_FACTOR * sizes.share, ("flops", "bytes", "temporary_bytes")),
            ("decode", decoding, sizes.share + DECODE_EXTRA, ("bytes",))):
        once, repeated = (figures(make(cfg, sizes, shared)) for shared in (True, False))
        for kind in kinds:
            yield Line(f"attention/{name}_{kind}", once[kind] / repeated[kind], "x_repeated",
                       most=bar)


def main() -> int:
    """Runs the benchmark; returns 1 above a bar."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompt", type=int, default=1024, help="P, prompt tokens (default: 1024)")
    parser.add_argument("--answers", type=int, default=8, help="G, answers (default: 8)")
    parser.add_argument("--tokens", type=int, default=16, help="T, answer tokens (default: 16)")
    args = parser.parse_args()
    return report(measurements(Sizes(args.prompt, args.answers, args.tokens)))


if __name__ == "__main__":
    sys.exit(main())
