"""Every tensor of the released sizes is accounted for by name and shape; none is allocated."""

import gzip
import json
import pathlib

import jax
import pytest

from guardjax.models.config import ModelConfig
from guardjax.models.hf_names import hub_name, tensor_table
from guardjax.models.init import param_shapes
from guardjax.models.releases import NUM_PARAMETERS, RELEASES

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "models" / "tensors.json.gz"


@pytest.fixture(name="reference", scope="module")
def _reference():
    """Size -> hub name -> shape, from the reference's model on the meta device."""
    stored = json.loads(gzip.decompress(GOLDEN.read_bytes()))["tensors"]
    return {size: {name: tuple(shape) for name, shape in tensors.items()}
            for size, tensors in stored.items()}


@pytest.mark.parametrize("size", RELEASES)
def test_nothing_is_missing_and_nothing_unused(size, reference):
    cfg = ModelConfig.from_hf(RELEASES[size])
    table = tensor_table(cfg)
    ours = {spec.name: spec.shape for spec in table}
    assert len(ours) == len(table)
    assert ours == reference[size]
    assert sum(spec.size for spec in table) == NUM_PARAMETERS[size]


def test_the_table_has_the_shapes_of_the_parameters():
    cfg = ModelConfig.from_hf(RELEASES["3B"])
    shapes = jax.tree_util.tree_leaves_with_path(param_shapes(cfg))
    ours = {tuple(key.key for key in path): leaf.shape for path, leaf in shapes}
    assert {spec.path: spec.our_shape for spec in tensor_table(cfg)} == ours


def test_names_in_memory_become_those_of_the_hub(reference):
    for name in reference["7B"]:
        inner = {"model": "model.language_model", "visual": "model.visual"}
        first, _, rest = name.partition(".")
        assert hub_name(f"{inner.get(first, first)}.{rest}") == name
        assert hub_name(name) == name
