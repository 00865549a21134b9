"""A checkpoint is restored onto other meshes than it was saved on, and training goes on."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest


@pytest.mark.slow
def test_arrays_come_back_equal_on_every_mesh_and_training_goes_on(tmp_path):
    env = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=8",
                        "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-W", "error::DeprecationWarning:guardjax", "-m",
         "tests.train.many_meshes", str(tmp_path)], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    out = json.loads(done.stdout.splitlines()[-1])
    assert out["equal"] == [True] * 3       # bit by bit, with moments, key and counters
    assert out["shards"] == {
        "fsdp=8": [8, [64, 16]], "data=2, fsdp=4": [8, [64, 32]],
        "data=2, fsdp=2, tensor=2": [8, [32, 64]], "one device": [1, [64, 128]]}
    assert len(out["losses"]) == 12 and out["alone"][-1] < out["alone"][0]
    # Sums in another order on each mesh.
    np.testing.assert_allclose(out["losses"], out["alone"], rtol=1e-5)
