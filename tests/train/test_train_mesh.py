"""Real stages on eight devices compute what they compute on one, under every rule set."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from guardjax.train.sharding import RULE_SETS

# Of the norm: float32 sums in another order.
TOLERANCE = 2e-5


@pytest.mark.slow
@pytest.mark.timeout(900)       # a dozen programs for eight devices
@pytest.mark.parametrize("kind", ["sft", "grpo"])
def test_eight_devices_give_losses_and_gradients_of_one(kind):
    env = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=8",
                        "JAX_PLATFORMS": "cpu", "TF_CPP_MIN_LOG_LEVEL": "0"}
    env.pop("JAX_COMPILATION_CACHE_DIR", None)      # what is read from there warns of nothing
    done = subprocess.run([sys.executable, "-W", "error::DeprecationWarning:guardjax", "-m",
                           "tests.train.many_devices", kind], env=env, capture_output=True,
                          text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    out = json.loads(done.stdout.splitlines()[-1])
    assert set(out) == set(RULE_SETS)
    assert [each["devices"] for each in out.values()] == [1, 8, 8, 8]
    for name, each in out.items():
        np.testing.assert_allclose(
            each["losses"], out["single"]["losses"], rtol=TOLERANCE, atol=1e-6, err_msg=name)
        assert each["gradient"] > 1e-3 and each["apart"] < TOLERANCE, name
        assert set(each["traces"]) <= {1, 2}, "words and pictures are shapes of their own"
    # [layers, D, F] = [2, 64, 96], its moment alike.
    assert out["data_parallel"]["shards"] == [[2, 64, 96]] * 2
    assert out["fsdp"]["shards"] == [[2, 64, 24]] * 2
    assert out["fsdp_tensor"]["shards"] == [[2, 32, 48]] * 2
    assert "rematerialization" not in done.stderr, done.stderr[-3000:]
