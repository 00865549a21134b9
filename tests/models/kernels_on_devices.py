r"""Splash on eight fake devices against `xla` on one; prints the largest differences as JSON.

    XLA_FLAGS=--xla_force_host_platform_device_count=8 \
        python -m tests.models.kernels_on_devices fsdp=8 "data=2, fsdp=4"
"""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from guardjax.models.attention import KeyPart, OwnTokens, attend_rows, attend_segments, splash
from guardjax.models.attention import segment_attention
from guardjax.train.config import MeshConfig
from guardjax.train.sharding import make_mesh

K, R, D = 2, 2, 16
SCALE = D**-0.5
SPLASH = functools.partial(splash.attend, interpret=True)

# Name -> (sizes of data, fsdp and tensor, batch). The last two batches are not divided by the ways.
CASES = {
    "fsdp=8": ((1, 8, 1), 8),
    "data=2, fsdp=4": ((2, 4, 1), 8),
    "data=2, fsdp=2, tensor=2": ((2, 2, 2), 8),
    "rows over data, heads over fsdp": ((2, 2, 2), 6),
    "nothing is divided": ((1, 8, 1), 3),
}


def inputs(batch: int) -> dict[str, Any]:
    """Two segments of text, the answers under the prompt, and rows of patches with frames."""
    rng = np.random.default_rng(batch)
    normal = lambda *shape: rng.standard_normal(shape).astype(np.float32)

    def segment(lead: tuple[int, ...], tokens: int) -> OwnTokens:
        mask = rng.random((*lead, tokens)) < 0.8
        causal = np.tril(np.ones((tokens, tokens), bool))
        return OwnTokens(2 * normal(*lead, K, R, tokens, D), normal(*lead, K, tokens, D),
                         normal(*lead, K, tokens, D), mask, mask[..., None, :] & causal)

    frame = np.where(rng.random((batch, 100)) < 0.9, np.arange(100) // 40, -1).astype(np.int32)
    return {"segments": [segment((batch,), 37), segment((batch, 3), 25)],
            "patches": tuple(normal(batch, K * R, 100, D) for _ in range(3)), "frame": frame}


def loss(tensors: Any, given: Any, kernel: Any) -> tuple[jax.Array, Any]:
    """A sum in which every output has a weight of its own, and the outputs."""
    own = [OwnTokens(*three, each.mask, each.own_mask)
           for three, each in zip(tensors["segments"], given["segments"], strict=True)]
    outputs = attend_segments(own, [], scale=SCALE, backend=kernel)
    outputs = [out * each.mask[..., None, None, :, None] for out, each in zip(outputs, own)]
    frame = given["frame"]
    if kernel == "xla":
        mask = (frame[:, :, None] == frame[:, None, :]) & (frame >= 0)[:, None, :]
        queries, keys, values = tensors["patches"]
        seen = segment_attention(queries[:, :, None], [KeyPart(keys, values, mask)],
                                 scale=SCALE)[:, :, 0]
    else:
        seen = attend_rows(*tensors["patches"], frame, frame, None, scale=SCALE, backend=kernel)
    outputs.append(seen)
    weights = np.random.default_rng(1)
    return sum((out * weights.standard_normal(out.shape).astype(np.float32)).sum()
               for out in outputs), outputs


@functools.partial(jax.jit, static_argnums=1)
def outputs_and_gradients(given: Any, kernel: Any) -> Any:
    """Outputs, and gradients in every query, key and value."""
    tensors = {"segments": [each[:3] for each in given["segments"]], "patches": given["patches"]}
    gradients, outputs = jax.grad(loss, has_aux=True)(tensors, given, kernel)
    return outputs, gradients


def main(names: Sequence[str]) -> None:
    """Prints for each named case how far outputs and gradients are apart, and a device's part."""
    jax.config.update("jax_disable_most_optimizations", True)      # compiled once, run once
    out = {}
    for name in names:
        sizes, batch = CASES[name]
        expected = outputs_and_gradients(inputs(batch), "xla")
        mesh = make_mesh(MeshConfig(*sizes, rules="fsdp_tensor"))
        with jax.set_mesh(mesh):
            found = outputs_and_gradients(inputs(batch), SPLASH)
        apart = [max(float(np.abs(np.asarray(a) - np.asarray(b)).max()) for a, b in zip(
            jax.tree.leaves(one), jax.tree.leaves(other), strict=True))
            for one, other in zip(found, expected, strict=True)]
        size = min(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(expected))
        out[name] = {"outputs": apart[0], "gradients": apart[1], "least": size,
                     "shards": [found[0][i].addressable_shards[0].data.shape for i in (0, -1)]}
    print(json.dumps(out))


if __name__ == "__main__":
    main(sys.argv[1:])
