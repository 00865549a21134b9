"""The chunked head on eight devices: the numbers of one, and each part of it fetched once."""

import json
import os
import subprocess
import sys
import textwrap

import pytest

CODE = textwrap.dedent("""
    import json, sys
    import jax, jax.numpy as jnp, numpy as np
    from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
    from guardjax.rl.head_logprobs import head_logprobs
    from guardjax.rl.head_shards import rows_a_chip
    from guardjax.rl.transform import make_transform
    from guardjax.scale.counts import count
    from guardjax.types import Head

    fsdp, tensor, vocab_axis = map(int, sys.argv[1:])
    vocab, width, batch, num = 1024, 64, 8, 16
    rng = np.random.default_rng(0)
    normal = lambda *shape: rng.normal(size=shape).astype(np.float32)
    hidden, weight, factors = normal(batch, num, width), normal(vocab, width), normal(2, batch, num)
    weight = weight if vocab_axis == 0 else weight.T
    targets = rng.integers(0, vocab, (batch, num)).astype(np.int32)
    transform = make_transform(vocab)

    def loss(weight, hidden):
        logp, entropy = head_logprobs(Head(weight, vocab_axis, "float32"), hidden, targets,
                                      transform, token_chunk=4, vocab_chunk=128)
        return jnp.sum(factors[0] * logp + factors[1] * entropy)

    graded = jax.value_and_grad(loss, (0, 1))
    want, wants = jax.jit(graded)(weight, hidden)
    mesh = jax.make_mesh((1, fsdp, tensor), ("data", "fsdp", "tensor"),
                         axis_types=(AxisType.Auto,) * 3)
    along = ["fsdp", None] if vocab_axis == 0 else [None, "fsdp"]
    places = NamedSharding(mesh, P(*along)), NamedSharding(mesh, P(("data", "fsdp")))
    with jax.set_mesh(mesh):
        assert rows_a_chip(batch) == batch // fsdp
        args = jax.device_put(weight, places[0]), jax.device_put(hidden, places[1])
        program = jax.jit(graded, out_shardings=(None, places)).lower(*args).compile()
        found, founds = program(*args)
    np.testing.assert_allclose(found, want, rtol=2e-5)
    for one, other in zip(founds, wants, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-4 * np.abs(other).max())
    print(json.dumps({"sent": dict(count(program.as_text()).collectives),
                      "head": weight.nbytes}))
""")


@pytest.mark.parametrize("fsdp, tensor, vocab_axis", [(8, 1, 0), (8, 1, 1), (4, 2, 1)])
def test_each_part_of_the_head_is_fetched_once(fsdp, tensor, vocab_axis):
    env = os.environ | {"XLA_FLAGS": f"--xla_force_host_platform_device_count={fsdp * tensor}",
                        "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", CODE, *map(str, (fsdp, tensor, vocab_axis))],
                          env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    out = json.loads(done.stdout.splitlines()[-1])
    gathered = out["sent"].get("all-gather", 0)
    # Once in the forward pass and once in the backward; else eight times for each of four chunks
    # of tokens.
    assert gathered < 2.1 * out["head"], out
    assert "rematerialization" not in done.stderr, done.stderr[-2000:]
