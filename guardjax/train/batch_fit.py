"""Whether a batch fits a mesh, and which mesh it would fit: a group of answers is never split.

B prompts are split over data * fsdp ways, and the width of layers over `tensor`, which divides the
key/value heads. A batch of two prompts, such as the paper's 16 completions, keeps two ways busy and
no more; what is left over is for `tensor`. Nothing is filled up or gathered over steps unasked:
either would change what the chips are paid for, or the update.
"""

from __future__ import annotations

from jax.sharding import Mesh

from guardjax.train.config import StageConfig
from guardjax.train.sharding import check_batch


def check_stage_batch(stage: StageConfig, num_key_heads: int, mesh: Mesh) -> None:
    """Checks that every batch that goes through a program of `stage` splits over the mesh.

    Raises:
      ValueError: one does not; names the batches and the meshes that would.
    """
    rl, many = stage.rl, stage.policies_per_image
    parts = rl.minibatches * rl.micro_batches
    size = stage.batch // parts // many     # prompts of one picture are never split, either
    try:
        check_batch(size, mesh)
    except ValueError as error:
        cuts = [f"in rl.minibatches={rl.minibatches} * rl.micro_batches={rl.micro_batches} parts; "
                "fewer parts are larger"] * (parts > 1)
        cuts += [f"as pictures under policies_per_image={many}, which stay whole"] * (many > 1)
        cut = f" ({stage.batch} prompts {', '.join(cuts)})" if cuts else ""
        raise ValueError(f"{error}{cut}; {_advice(size, num_key_heads, mesh.size)}") from None


def _advice(batch: int, num_key_heads: int, num_devices: int) -> str:
    ways, tensor = best_split(batch, num_key_heads, num_devices)
    used = ways * tensor
    rules = "fsdp_tensor" if tensor > 1 else "fsdp"
    keys = f"mesh.fsdp={ways} mesh.tensor={tensor} mesh.rules={rules}"
    if used == num_devices:
        return f"{num_devices} devices take a batch of {batch} as {keys}"
    return (f"a batch of {batch} keeps no more than {used} devices busy, as {keys}: take so many, "
            "or a larger batch")


def best_split(batch: int, num_key_heads: int, num_devices: int) -> tuple[int, int]:
    """(ways, tensor) that use the most of the devices for `batch` prompts, `tensor` least.

    `ways` divides the batch, `tensor` the heads.
    """
    divisors = lambda number: [n for n in range(1, number + 1) if number % n == 0]
    pairs = [(ways, tensor) for ways in divisors(max(1, batch)) for tensor in
             divisors(num_key_heads) if ways * tensor <= num_devices]
    return max(pairs, key=lambda pair: (pair[0] * pair[1], -pair[1]))
