"""What the chunked head of a 7B update sends and moves on a slice, with its gradients, on its own.

    JAX_PLATFORMS=cpu python experiments/scale/head.py v5e:2x2

A prompt a chip, eight answers of 512 tokens each; the rules split the head along the vocabulary.
Compiled in a minute, where the whole update takes many.
"""

from __future__ import annotations

import json
import sys

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from guardjax.models.config import ModelConfig
from guardjax.models.releases import RELEASES
from guardjax.rl.head_logprobs import head_logprobs
from guardjax.rl.transform import make_transform
from guardjax.scale.counts import count
from guardjax.scale.memory import compile_memory
from guardjax.scale.roofline import roofline
from guardjax.scale.slices import parse_slice, slice_mesh
from guardjax.train.config import MeshConfig
from guardjax.train.sharding import BATCH_SPEC
from guardjax.types import Head

TOKENS = 8 * 512


def main(name: str) -> None:
    """Prints one line of JSON, of one chip."""
    asked = parse_slice(name)
    mesh = slice_mesh(asked, MeshConfig(fsdp=-1, rules="fsdp"))
    text = ModelConfig.from_hf(RELEASES["7B"]).text
    transform = make_transform(text.vocab_size)

    def shape(dims: tuple[int, ...], dtype: str, spec: PartitionSpec) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(dims, dtype, sharding=NamedSharding(mesh, spec))

    weight = shape((text.hidden_size, text.vocab_size), "float32", PartitionSpec(None, "fsdp"))
    hidden = shape((asked.num_chips, TOKENS, text.hidden_size), "bfloat16", BATCH_SPEC)
    targets = shape((asked.num_chips, TOKENS), "int32", BATCH_SPEC)

    def loss(weight: jax.Array, hidden: jax.Array, targets: jax.Array) -> jax.Array:
        logp, _ = head_logprobs(Head(weight, 1, "bfloat16"), hidden, targets, transform)
        return jnp.sum(logp)

    graded = jax.jit(jax.value_and_grad(loss, (0, 1)),
                     out_shardings=(None, (weight.sharding, hidden.sharding)))
    with jax.set_mesh(mesh):
        compiled, memory = compile_memory(graded.lower(weight, hidden, targets))
    cost = count(compiled.as_text())
    bound = roofline(cost, asked.chip)
    print(json.dumps({
        "slice": name, "flops": cost.flops, "bytes": cost.bytes, "sent": dict(cost.collectives),
        "temporary": memory.temporaries, "least_seconds": bound.seconds,
        "bound_by": bound.bound_by}))


if __name__ == "__main__":
    main(sys.argv[1])
