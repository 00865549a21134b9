"""One tiny build of the policy world, shared by the tests of this folder."""

import pytest

from guardjax.world import builder

SIZES = {"train": 12, "dev": 4, "test": 4, "test_background": 4, "test_object": 8}


@pytest.fixture(scope="session")
def tiny_world(tmp_path_factory):
    """Directory of a small build; tests must not change it."""
    return builder.build(tmp_path_factory.mktemp("data"), SIZES, seed=3, progress=False)
