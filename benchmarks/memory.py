"""What scanning over layers, remat, adapters and four bits save: counted by the compiler.

    python benchmarks/memory.py

The gradient of a decoder's loss is compiled for this machine, never run, and its size and memory
are read off: the same numbers at every run of one version of JAX. Prints lines: name, value, unit,
bar, ok. The lines of four bits need the extra `qlora`.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import sys
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from bars import Line, report

import guardjax.models as models
from guardjax.models.config import ModelConfig, Remat, TextConfig, VisionConfig
from guardjax.models.init import param_shapes
from guardjax.train.config import LoraConfig, OptimConfig
from guardjax.train.optim import make_optimizer
from guardjax.train.recipe import make_recipe
from guardjax.types import Segment

TOKENS = 512
WHOLE, LORA = LoraConfig(), LoraConfig(rank=16)
NF4 = LoraConfig(rank=16, base="nf4")


@functools.cache
def config(layers: int, scan: bool, remat: Remat = "none") -> ModelConfig:
    """A decoder of width 256, and as small a tower as there can be."""
    vision = VisionConfig(depth=1, hidden_size=32, intermediate_size=32, num_heads=1,
                          out_hidden_size=256, fullatt_block_indexes=(0,))
    text = TextConfig(vocab_size=256, hidden_size=256, intermediate_size=1024,
                      num_hidden_layers=layers, num_attention_heads=4, num_key_value_heads=2,
                      mrope_section=(8, 12, 12))
    return ModelConfig(vision, text, tie_word_embeddings=True, scan_layers=scan, remat=remat)


def lowered(cfg: ModelConfig, lora: LoraConfig, inside: bool = False) -> Any:
    """The gradient of what is trained, frozen parameters beside it, not compiled yet.

    With `inside`, adapters are added to the kernels before the forward pass and not beside them.
    """
    recipe = make_recipe(("visual",), lora)
    make = recipe.whole if inside else recipe.merge
    trained, frozen = jax.eval_shape(lambda p: recipe.split(p, jax.random.key(0)),
                                     param_shapes(cfg))
    segment = Segment(tokens=jax.ShapeDtypeStruct((1, TOKENS), jnp.int32),
                      positions=jax.ShapeDtypeStruct((1, TOKENS, 3), jnp.int32),
                      mask=jax.ShapeDtypeStruct((1, TOKENS), bool))

    def loss(trained: Any, frozen: Any, segment: Segment) -> jax.Array:
        (hidden,), _ = models.forward(make(trained, frozen), cfg, [segment])
        return jnp.square(hidden).mean()

    return jax.jit(jax.grad(loss)).lower(trained, frozen, segment)


def program_lines(layers: int, scan: bool) -> int:
    """Lines of the program that is given to the compiler."""
    return lowered(config(layers, scan), WHOLE).as_text().count("\n")


def temporary(cfg: ModelConfig, lora: LoraConfig = WHOLE, inside: bool = False) -> int:
    """Bytes beside arguments and results."""
    return lowered(cfg, lora, inside).compile().memory_analysis().temp_size_in_bytes


def arguments(cfg: ModelConfig, lora: LoraConfig) -> int:
    """Bytes of all parameters, trained and frozen, and of one prompt."""
    return lowered(cfg, lora).compile().memory_analysis().argument_size_in_bytes


def state_bytes(cfg: ModelConfig, lora: LoraConfig) -> int:
    """Bytes of what is trained and of the optimiser's moments."""
    recipe, tx = make_recipe(("visual",), lora), make_optimizer(OptimConfig(), 1)

    def start(params: Any) -> Any:
        trained, _ = recipe.split(params, jax.random.key(0))
        return trained, tx.init(trained)

    return sum(leaf.size * leaf.dtype.itemsize
               for leaf in jax.tree.leaves(jax.eval_shape(start, param_shapes(cfg))))


def measurements() -> Iterator[Line]:
    """Of scanning, remat, adapters and four bits, in this order."""
    yield Line("memory/program_growth_scanned", program_lines(16, True) / program_lines(4, True),
               "x_from_4_to_16_layers", most=1.0)
    yield Line("memory/program_scanned", program_lines(16, True) / program_lines(16, False),
               "x_unrolled_16_layers", most=0.25)
    none = temporary(config(16, True))
    dots, full = (temporary(config(16, True, kind)) for kind in ("dots", "full"))
    yield Line("memory/temp_remat_dots", dots / none, "x_none", most=0.6)
    yield Line("memory/temp_remat_full", full / none, "x_none", most=0.3)
    scanned = config(16, True, "full")
    yield Line("memory/state_lora", state_bytes(scanned, LORA) / state_bytes(scanned, WHOLE),
               "x_whole_weights", most=0.1)
    beside = temporary(scanned, LORA)
    yield Line("memory/temp_lora_beside_kernels", beside / temporary(scanned, LORA, inside=True),
               "x_inside_kernels", most=0.6)
    if importlib.util.find_spec("qwix") is not None:
        whole, four = arguments(scanned, LORA), arguments(scanned, NF4)
        yield Line("memory/parameters_nf4", four / whole, "x_float32", most=0.25)
        total = four + temporary(scanned, NF4)
        yield Line("memory/step_nf4", total / (whole + beside), "x_float32", most=0.8)


def main() -> int:
    """Runs the benchmark; returns 1 above a bar."""
    argparse.ArgumentParser(description=__doc__,
                            formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    return report(measurements())


if __name__ == "__main__":
    sys.exit(main())
