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
# Of a kernel [layers, D, F] = [2, 64, 96] and its moment.
SHARDS = {"single": [2, 64, 96], "data_parallel": [2, 64, 96], "fsdp": [2, 64, 24],
          "fsdp_tensor": [2, 32, 48]}


def trained(*words):
    """What `many_devices` prints, by rule set; it must compile without a word of warning."""
    env = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=8",
                        "JAX_PLATFORMS": "cpu", "TF_CPP_MIN_LOG_LEVEL": "0"}
    env.pop("JAX_COMPILATION_CACHE_DIR", None)      # what is read from there warns of nothing
    done = subprocess.run([sys.executable, "-W", "error::DeprecationWarning:guardjax", "-m",
                           "tests.train.many_devices", *words], env=env, capture_output=True,
                          text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "rematerialization" not in done.stderr, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def check(out):
    """Asserts that all rule sets give the losses and gradients of "single", on their shards."""
    assert [each["devices"] for each in out.values()] == [1] + [8] * (len(out) - 1)
    for name, each in out.items():
        np.testing.assert_allclose(
            each["losses"], out["single"]["losses"], rtol=TOLERANCE, atol=1e-6, err_msg=name)
        assert each["gradient"] > 1e-3 and each["apart"] < TOLERANCE, name
        assert set(each["traces"]) <= {1, 2}, "words and pictures are shapes of their own"
        assert each["shards"] == [SHARDS[name]] * 2, name


@pytest.mark.parametrize("kind, rules", [("sft", "fsdp_tensor"), ("grpo", "fsdp")])
@pytest.mark.slow               # a quarter of the programs of the test below, and still no blink
@pytest.mark.timeout(900)
def test_eight_devices_are_as_one(kind, rules):
    out = trained(kind, "--words", "single", rules)
    assert set(out) == {"single", rules}
    check(out)


@pytest.mark.slow
@pytest.mark.timeout(900)       # a dozen programs for eight devices
@pytest.mark.parametrize("kind", ["sft", "grpo"])
def test_eight_devices_are_as_one_under_every_rule_set(kind):
    out = trained(kind)
    assert set(out) == set(RULE_SETS)
    check(out)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_eight_devices_with_splash_are_as_one_without():
    """Pictures and words, heads over `tensor`; kernels as the chips run them, step by step."""
    check(trained("sft", "--splash", "single", "fsdp_tensor"))
