"""Kernels on a mesh: who computes what, and that it is what one device computes."""

import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest
from jax.sharding import AbstractMesh, AxisType

from guardjax.models.attention import AttentionError, attend_rows
from guardjax.models.attention.on_mesh import shares
from tests.models.kernels_on_devices import CASES

# As on one device (`test_attention_kernels.py`).
OUTPUTS, GRADIENTS = 5e-6, 3e-5
# A device's part of the prompt's output [B, 2, 2, 37, 16] and of the patches' [B, 4, 100, 16].
SHARDS = {
    "fsdp=8": [[1, 2, 2, 37, 16], [1, 4, 100, 16]],
    "data=2, fsdp=4": [[1, 2, 2, 37, 16], [1, 4, 100, 16]],
    "data=2, fsdp=2, tensor=2": [[2, 1, 2, 37, 16], [1, 4, 100, 16]],
    "rows over data, heads over fsdp": [[3, 1, 2, 37, 16], [3, 1, 100, 16]],
    "nothing is divided": [[3, 2, 2, 37, 16], [3, 4, 100, 16]],
}


def check(*names):
    """Runs these cases on eight devices that a CPU stands in for."""
    env = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=8",
                        "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-W", "error::DeprecationWarning:guardjax", "-m",
         "tests.models.kernels_on_devices", *names], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    for name in names:
        each = found[name]
        assert each["outputs"] < OUTPUTS and each["gradients"] < GRADIENTS, name
        assert each["least"] > 1, "else zeros were compared"
        assert each["shards"] == SHARDS[name], name


MOST = "data=2, fsdp=2, tensor=2"      # every axis, rows and heads


def test_eight_devices_compute_what_xla_does_on_one():
    check(MOST)


@pytest.mark.slow
def test_whatever_the_axes_and_the_batch():
    check(*(name for name in CASES if name != MOST))


@pytest.mark.parametrize("sizes, for_rows, batch, key_heads, rows, heads", [
    ((1, 8, 1), "df", 16, 4, "f", ""),
    ((2, 4, 1), "df", 8, 4, "df", ""),
    ((2, 2, 2), "df", 8, 4, "df", "t"),
    ((2, 2, 2), "df", 8, 3, "df", ""),          # heads are not cut, and not filled up
    ((2, 2, 2), "dft", 8, 16, "dft", ""),       # pictures: `tensor` takes rows
    ((2, 2, 2), "dft", 4, 16, "df", "t"),       # fewer of them: it takes heads
    ((2, 4, 1), "df", 4, 3, "f", ""),           # four ways are more than the two that come first
    ((2, 4, 2), "df", 6, 4, "d", "f"),
    ((1, 8, 1), "df", 3, 2, "", ""),
])
def test_who_computes_what(sizes, for_rows, batch, key_heads, rows, heads):
    mesh = dict(zip(("data", "fsdp", "tensor"), sizes, strict=True))
    found = shares(mesh, [axis for axis in mesh if axis[0] in for_rows], batch=batch,
                   key_heads=key_heads)
    assert ["".join(axis[0] for axis in axes) for axes in found] == [rows, heads]


@pytest.mark.parametrize("kind", [AxisType.Explicit, AxisType.Manual])
def test_an_axis_that_is_not_auto_is_refused(kind):
    mesh = AbstractMesh((2, 2), ("data", "fsdp"), axis_types=(AxisType.Auto, kind))
    row, ids = np.zeros((2, 2, 8, 16), np.float32), np.zeros((2, 8), np.int32)
    with jax.sharding.use_abstract_mesh(mesh), pytest.raises(
            AttentionError, match=f"axis 'fsdp' of the mesh is {kind.name}: make it AxisType.Auto, "
                                  "or choose attention='xla'"):
        attend_rows(row, row, row, ids, ids, None, scale=1.0, backend="splash")
