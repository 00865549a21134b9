"""The mark of tests that compile for a TPU which is not there."""

import importlib.util

import pytest

# `make test-aot`, which CI calls, puts libtpu beside and runs them. In the environment itself JAX
# would look for a TPU at every start.
needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None,
    reason="libtpu is not installed: `make test-aot` puts it beside and runs these")
