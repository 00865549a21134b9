"""Names of slices, published figures, the memory a compiler asks for, and bounds of time."""

import pytest

from guardjax.models.config import ModelConfig
from guardjax.models.releases import RELEASES, release_of
from guardjax.scale.chips import CHIPS
from guardjax.scale.memory import Memory, bytes_asked_for
from guardjax.scale.roofline import Cost, roofline
from guardjax.scale.slices import SliceError, parse_slice
from guardjax.scale.workload import Lengths
from guardjax.train.config import MeshConfig
from guardjax.train.sharding import mesh_sizes


def test_a_slice_is_a_generation_and_a_shape():
    asked = parse_slice("v5p:2x2x4")
    assert (asked.chip.name, asked.num_chips, asked.name) == ("v5p", 16, "v5p:2x2x4")


@pytest.mark.parametrize("name, message", [
    ("v5e", "not a TPU slice such as v5e:4x4; known are v5e: 1x1, 2x2.*; v5p: 2x2x1.*; v6e: "),
    ("h100:2x2", "is not a TPU slice"),
    ("v5e:3x3", "v5e comes in 1x1, 2x2, 2x4"),
    ("v5p:4x4", "v5p comes in 2x2x1"),
])
def test_slices_that_do_not_exist_are_refused(name, message):
    with pytest.raises(SliceError, match=message):
        parse_slice(name)


@pytest.mark.parametrize("chip", CHIPS.values(), ids=CHIPS)
def test_figures_are_of_their_kind(chip):
    """A slip of a unit (bits for bytes, GB for GiB) is a factor of eight or a thousand."""
    assert 1e14 < chip.peak_flops < 1e15
    assert 5e11 < chip.hbm_bandwidth < 5e12
    assert chip.hbm_bandwidth / 10 < chip.interconnect < chip.hbm_bandwidth
    assert 15 * 2**30 < chip.hbm < 96 * 2**30
    sizes = [parse_slice(f"{chip.name}:{shape}").num_chips for shape in chip.slices]
    assert sizes == sorted(sizes) and "documentation" in chip.source


def test_a_program_that_does_not_fit_says_by_how_much():
    text = ("RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 20.50G of 15.75G hbm. "
            "Exceeded hbm capacity by 4.75G.")
    assert bytes_asked_for(text) == int(20.5 * 2**30)
    text = ("RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO "
            "temporaries (63.00G) exceeds available HBM (15.75G).")
    assert bytes_asked_for(text) == 63 * 2**30
    assert bytes_asked_for("INTERNAL: something else") is None
    assert Memory(None, None, int(20.5 * 2**30), 1.0).spare(CHIPS["v5e"].hbm) < -0.3


def test_time_is_that_of_the_slowest_resource():
    chip = CHIPS["v5e"]
    bound = roofline(Cost(197e12, 819e9 / 2, {"all-gather": 100e9, "all-reduce": 300e9}), chip)
    assert (bound.compute, bound.memory, bound.interconnect) == (1.0, 0.5, 2.0)
    assert (bound.seconds, bound.bound_by, bound.flop_share(0.5)) == (2.0, "interconnect", 0.25)


@pytest.mark.parametrize("name, size", [
    ("Qwen/Qwen2.5-VL-7B-Instruct", "7B"), ("models/Qwen2.5-VL-3B-Instruct/", "3B"),
    ("Qwen/Qwen2.5-VL-8B-Instruct", None), ("base", None)])
def test_a_release_is_known_by_its_name(name, size):
    assert release_of(name) == size
    if size:
        ModelConfig.from_hf(RELEASES[size])


def test_lengths_that_make_no_prompt_are_refused():
    with pytest.raises(ValueError, match="images are part of the prompt"):
        Lengths(prompt=100, image=200)


def test_axes_that_the_rules_do_not_use_are_refused():
    with pytest.raises(ValueError, match="mesh.tensor=2 splits layers, and mesh.rules='fsdp'"):
        mesh_sizes(MeshConfig(fsdp=2, tensor=2, rules="fsdp"), 4)
    assert mesh_sizes(MeshConfig(fsdp=-1, tensor=2, rules="fsdp_tensor"), 8) == (1, 4, 2)
