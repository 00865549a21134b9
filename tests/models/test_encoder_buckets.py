"""Pictures of any size reach the encoder as arrays of few shapes: as many programs as buckets."""

import dataclasses

import jax
import numpy as np

from guardjax import layout
from guardjax.data.lengths import buckets_for
from guardjax.data.images import PatchSpec, to_patches
from guardjax.models import qwen2_5_vl as model
from tests.models.reference_cases import SMALLEST

SPEC = PatchSpec(patch_size=4, min_pixels=64, max_pixels=80 * 80)
CFG = dataclasses.replace(SMALLEST, vision=dataclasses.replace(
    SMALLEST.vision, depth=1, fullatt_block_indexes=(0,)))


def test_programs_are_as_many_as_buckets():
    params = model.init_params(CFG, jax.random.key(0))
    encode = jax.jit(lambda params, vision: model.encode_images(params, CFG, vision))
    _, buckets = buckets_for(SPEC, CFG.vision.window_units)
    rng, grids, used = np.random.default_rng(0), set(), set()
    for height, width in rng.integers(9, 80, (40, 2)):
        flat, grid = to_patches(rng.integers(0, 256, (height, width, 3), np.uint8), SPEC)
        place = layout.vision_layout([grid], window_units=CFG.vision.window_units,
                                     merge=CFG.vision.spatial_merge_size)
        slots = layout.bucket(place.num_slots, buckets)
        features = encode(params, layout.pack_vision([place], [flat], slots, SPEC.patch_dim))
        assert np.isfinite(features[0, :place.num_slots // 4]).all()
        grids.add(grid)
        used.add(slots)
    assert len(grids) > 30 and 1 < len(used) <= len(buckets)
    assert encode._cache_size() == len(used)
