"""Memory of the log-probability pass: peak temporaries over the size of the logits tensor.

    python benchmarks/logprobs.py [--vocab 151936] [--rows 8] [--tokens 512] [--width 512]

The gradient of log-probabilities and entropies by hidden states and head, in float32, of B = 1
prompt with `rows` answers; the head is stored as [V, D] (tied) and as [D, V]. The numbers are those
of the compiled program (`memory_analysis`): nothing is run. The gradients are results and not among
the temporaries. Prints a line each: name, value, unit, bar, ok; the plain way, which makes all the
logits, has no bar.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator

import jax
import jax.numpy as jnp
from bars import Line, report

from guardjax.rl.logprobs import token_logprobs
from guardjax.rl.model_fns import ModelFns
from guardjax.rl.transform import make_transform
from guardjax.types import Head, PromptBatch, Segment

BAR = 0.1


def model_fns(vocab_axis: int, chunked: bool) -> ModelFns:
    """A model whose hidden states are parameters, so that there is only its head to measure."""
    def head(params: dict[str, jax.Array]) -> Head:
        return Head(params["head"], vocab_axis=vocab_axis, dtype="float32")

    return ModelFns(
        encode=lambda params, vision: None,
        forward=lambda params, segments, features, cache: (
            (params["prompt"], params["answers"]), None),
        unembed=lambda params, hidden: head(params).product(hidden, params["head"]),
        open_buffer=lambda cache, lead, num: cache,
        head=head if chunked else None)


def compiled_pass(vocab: int, rows: int, tokens: int, width: int, *, vocab_axis: int,
                  chunked: bool = True) -> jax.stages.Compiled:
    """The compiled `(params, targets) -> (loss, gradients)`; nothing of its size is allocated."""
    fns, transform = model_fns(vocab_axis, chunked), make_transform(vocab, blocked=[0])
    segment = Segment(jnp.ones((1, 1), jnp.int32), jnp.zeros((1, 1, 3), jnp.int32),
                      jnp.ones((1, 1), bool))
    prompts = PromptBatch(segment, jnp.ones(1, jnp.int32))

    def loss(params: dict[str, jax.Array], targets: jax.Array, weights: jax.Array) -> jax.Array:
        length = jnp.full((1, rows), tokens)
        logp, entropy = token_logprobs(fns, params, prompts, targets, length, transform)
        return jnp.sum(weights * (logp + 0.1 * entropy))

    shape = (1, rows, tokens)
    head = (vocab, width) if vocab_axis == 0 else (width, vocab)
    floats = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.float32)
    params = {"prompt": floats(1, 1, width), "answers": floats(1, rows, tokens - 1, width),
              "head": floats(*head)}
    targets = jax.ShapeDtypeStruct(shape, jnp.int32)
    return jax.jit(jax.value_and_grad(loss)).lower(params, targets, floats(*shape)).compile()


def measurements(args: argparse.Namespace) -> Iterator[Line]:
    """Of the plain way, then of the chunked one with either head."""
    sizes = (args.vocab, args.rows, args.tokens, args.width)
    logits = 4 * args.vocab * args.rows * args.tokens
    for name, vocab_axis, chunked in (("plain", 1, False), ("tied", 0, True), ("untied", 1, True)):
        compiled = compiled_pass(*sizes, vocab_axis=vocab_axis, chunked=chunked)
        value = compiled.memory_analysis().temp_size_in_bytes / logits
        yield Line(f"logprobs/temporaries_{name}", value, "x_logits", most=BAR if chunked else None)


def main() -> int:
    """Runs the benchmark; returns 1 above the bar."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vocab", type=int, default=151936, help="V (default: Qwen2.5-VL's)")
    parser.add_argument("--rows", type=int, default=8, help="answers, B * G (default: 8)")
    parser.add_argument("--tokens", type=int, default=512, help="T (default: 512)")
    parser.add_argument("--width", type=int, default=512, help="D (default: 512)")
    return report(measurements(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
