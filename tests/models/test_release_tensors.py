"""Every tensor of the released sizes is accounted for by name and shape; none is allocated."""

import gzip
import json
import pathlib

import jax
import pytest

from guardjax.models.config import ModelConfig
from guardjax.models.hf_names import hub_name, memory_name, tensor_table
from guardjax.models.init import param_shapes
from guardjax.models.releases import FAMILY_RELEASES, NUM_PARAMETERS, RELEASES

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "models"
ALL = RELEASES | FAMILY_RELEASES


@pytest.fixture(name="reference", scope="module")
def _reference():
    """Size -> hub name -> shape, from the reference's model on the meta device."""
    stored = {}
    for name in ("tensors.json.gz", "family_tensors.json.gz"):
        stored |= json.loads(gzip.decompress((GOLDEN / name).read_bytes()))["tensors"]
    return {size: {name: tuple(shape) for name, shape in tensors.items()}
            for size, tensors in stored.items()}


@pytest.mark.parametrize("size", ALL)
def test_nothing_is_missing_and_nothing_unused(size, reference):
    cfg = ModelConfig.from_hf(ALL[size])
    table = tensor_table(cfg)
    ours = {spec.name: spec.shape for spec in table}
    assert len(ours) == len(table)
    assert ours == {hub_name(cfg, name): shape for name, shape in reference[size].items()}
    assert sum(spec.size for spec in table) == NUM_PARAMETERS[size]


def test_the_table_has_the_shapes_of_the_parameters():
    cfg = ModelConfig.from_hf(RELEASES["3B"])
    shapes = jax.tree_util.tree_leaves_with_path(param_shapes(cfg))
    ours = {tuple(key.key for key in path): leaf.shape for path, leaf in shapes}
    assert {spec.path: spec.our_shape for spec in tensor_table(cfg)} == ours


def test_names_in_memory_become_those_of_the_hub(reference):
    cfg = ModelConfig.from_hf(RELEASES["7B"])
    for name in reference["7B"]:
        inner = {"model": "model.language_model", "visual": "model.visual"}
        first, _, rest = name.partition(".")
        assert hub_name(cfg, f"{inner.get(first, first)}.{rest}") == name
        assert hub_name(cfg, name) == name


def test_the_names_of_every_release_of_transformers_are_one():
    cfg = ModelConfig.from_hf(FAMILY_RELEASES["LLaVA 1.5 7B"])
    for spec in tensor_table(cfg):
        part = spec.name.removeprefix("vision_tower.vision_model.")
        names = {spec.name, memory_name(cfg, spec.name)}
        if part != spec.name:
            names |= {f"{start}vision_tower.{middle}{part}"
                      for start in ("", "model.") for middle in ("", "vision_model.")}
        assert {hub_name(cfg, name) for name in names} == {spec.name}
