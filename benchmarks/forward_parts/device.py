"""The port alone on one device, in bfloat16, against what that device can do at most.

Prefill is held against the fastest matrix product, a step of decoding against the bandwidth of
memory, both measured in the same turns. Times are wall seconds, medians, with prompts already on
the device: a device's own clock does not tick in this process.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Iterator, Sequence

import flax.traverse_util
import jax
import jax.numpy as jnp
from bars import Line
from forward_parts import counts
from forward_parts.cases import Model, make_rows, prompt_batch
from forward_parts.clock import Timed, best, interleaved
from forward_parts.measure import floor
from forward_parts.ours import Ours

from guardjax.models.config import ModelConfig, TextConfig, VisionConfig
from guardjax.models.init import Params, param_shapes

ITEM = 2        # bytes of a bfloat16
# Side of the matrices that are multiplied, and bytes of the array that is read.
CEILINGS = {"gpu": (8192, 2 * 2**30), "cpu": (512, 2**26)}


class NoDeviceError(RuntimeError):
    """The device that was asked for is not there; the message says what to do."""


def config_3b() -> ModelConfig:
    """The release of 3 billion parameters."""
    return ModelConfig(
        VisionConfig(depth=32, hidden_size=1280, intermediate_size=3420, num_heads=16,
                     out_hidden_size=2048),
        TextConfig(vocab_size=151936, hidden_size=2048, intermediate_size=11008,
                   num_hidden_layers=36, num_attention_heads=16, num_key_value_heads=2,
                   mrope_section=(16, 24, 24)), tie_word_embeddings=True)


def shape_3b() -> Model:
    """Prompts of a picture of 448 x 448 pixels and 254 words; 64 steps."""
    return _model("3b", config_3b(), prompt=512, tokens=65, side=32)


def shape_tiny() -> Model:
    """Small enough for any machine: that the path runs, not how fast it is."""
    cfg = ModelConfig(
        VisionConfig(depth=2, hidden_size=64, intermediate_size=128, num_heads=2,
                     out_hidden_size=64, fullatt_block_indexes=(1,)),
        TextConfig(vocab_size=512, hidden_size=64, intermediate_size=256, num_hidden_layers=2,
                   num_attention_heads=4, num_key_value_heads=2, mrope_section=(2, 3, 3)),
        image_token_id=500, video_token_id=501, vision_start_token_id=502,
        vision_end_token_id=503, tie_word_embeddings=True)
    return _model("tiny", cfg, prompt=48, tokens=5, side=8)


SHAPES: dict[str, Callable[[], Model]] = {"3b": shape_3b, "tiny": shape_tiny}


def _model(name: str, cfg: ModelConfig, prompt: int, tokens: int, side: int) -> Model:
    cfg = dataclasses.replace(cfg, dtype="bfloat16", attention="auto")
    return Model(name, cfg, _drawn(cfg), prompt, tokens, side=side)


def _drawn(cfg: ModelConfig) -> Params:
    """Random parameters in bfloat16, drawn where they stay."""
    @functools.partial(jax.jit, static_argnums=(1, 2))
    def draw(key: jax.Array, shape: tuple[int, ...], mean: float) -> jax.Array:
        return mean + 0.02 * jax.random.normal(key, shape, jnp.bfloat16)

    flat = flax.traverse_util.flatten_dict(param_shapes(cfg))
    keys = jax.random.split(jax.random.key(0), len(flat))
    return flax.traverse_util.unflatten_dict({
        path: draw(key, leaf.shape, 1.0 if path[-1] == "scale" else 0.0)
        for key, (path, leaf) in zip(keys, flat.items())})


def measurements(device: str, shape: str, batches: Sequence[int],
                 repeats: int) -> Iterator[Line]:
    """Of each batch; no bars, since every device has other ceilings.

    Raises:
        NoDeviceError: this process computes on something else.
    """
    if jax.default_backend() != device:
        raise NoDeviceError(
            f"--device {device}: this process computes on {jax.default_backend()} "
            f"(JAX_PLATFORMS is {os.environ.get('JAX_PLATFORMS', '')!r}); on a machine with an "
            "NVIDIA GPU install guardjax[cuda] and leave JAX_PLATFORMS unset, elsewhere leave "
            "--device out")
    model = SHAPES[shape]()
    for batch in batches:
        yield from _of_batch(model, device, batch, repeats)


def _of_batch(model: Model, device: str, batch: int, repeats: int) -> Iterator[Line]:
    cfg, rows, end = model.cfg, make_rows(model, batch), f"{model.name}_b{batch}"
    ours = Ours(model, rows)
    ours.decode()
    prompts = jax.device_put(prompt_batch(cfg, rows))
    ours.prefill_laid_out(prompts)      # both are compiled
    size, num_bytes = CEILINGS[device]
    ways = {"reads": _reads(num_bytes), "products": _products(size)}
    things = {"prefill": Timed(lambda _: ours.prefill_laid_out(prompts)),
              "decode": Timed(lambda _: ours.decode())}
    things |= {name: timed for way in ways.values() for name, (timed, _) in way.items()}
    seconds = interleaved(things, repeats)

    read_by, bandwidth = best(ways["reads"], seconds, "wall")
    multiplied_by, rate = best(ways["products"], seconds, "wall")
    yield Line(f"forward/memory_{end}", bandwidth / 1e9, f"GB/s_{read_by}")
    yield Line(f"forward/arithmetic_{end}", rate / 1e9, f"GFLOP/s_{multiplied_by}")
    prefill = seconds["prefill"].wall
    flops = counts.prefill_flops(cfg, batch, model.prompt, model.side**2)
    yield Line(f"forward/prefill_ms_{end}", 1000 * prefill, "ms")
    yield Line(f"forward/matrix_{end}", flops / rate / prefill, "x_measured")
    steps, length = model.tokens - 1, model.prompt + model.tokens - 1
    step = seconds["decode"].wall / steps
    reading = counts.step_bytes(cfg, batch, length, ITEM) / bandwidth
    multiplying = counts.step_flops(cfg, batch, length) / rate
    yield Line(f"forward/decode_ms_{end}", 1000 * step, "ms")
    yield Line(f"forward/bandwidth_{end}", reading / step, "x_measured")
    yield floor(end, reading, multiplying, step)


def _reads(num_bytes: int) -> dict[str, tuple[Timed, int]]:
    """Ways to go through the device's memory, each with the bytes that it reads and writes."""
    array = jnp.ones(num_bytes // ITEM, jnp.bfloat16)
    total = jax.jit(lambda x: jnp.sum(x, dtype=jnp.float32))
    negated = jax.jit(jnp.negative)
    return {"sum": (_ready(total, array), num_bytes),
            "copy": (_ready(negated, array), 2 * num_bytes)}


def _products(size: int) -> dict[str, tuple[Timed, int]]:
    """The product of two matrices in bfloat16, with its floating point operations."""
    one = jax.random.normal(jax.random.key(0), (size, size), jnp.bfloat16)
    return {"bfloat16_matmul": (_ready(jax.jit(jnp.matmul), one, one), 2 * size**3)}


def _ready(function: Callable[..., jax.Array], *args: jax.Array) -> Timed:
    jax.block_until_ready(function(*args))      # compiled
    return Timed(lambda _: jax.block_until_ready(function(*args)))
