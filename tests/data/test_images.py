"""Pixels and patches are those of transformers' own processor, to the last bit."""

import io
import tracemalloc

import numpy as np
import pytest
from PIL import Image
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from guardjax.data.images import PatchSpec, resize, smart_size, to_patches
from guardjax.data.intake import load_picture

RELEASE = PatchSpec(max_pixels=12_845_056)
SMALL = PatchSpec(max_pixels=28 * 28 * 40)
TINY = PatchSpec(patch_size=8, min_pixels=32 * 32, max_pixels=96 * 96)
ODD = PatchSpec(patch_size=5, temporal_patch_size=1, merge_size=3, min_pixels=900, max_pixels=9000,
                mean=(0.5, 0.25, 0.1), std=(0.3, 0.7, 1.0))
SPECS = {"release": RELEASE, "small": SMALL, "tiny": TINY, "odd": ODD}
# (height, width): smaller than one token, squares, slivers up to the limit of 200, halves that
# round to even, one pixel off a multiple, and sizes that the limits enlarge and shrink.
SIZES = [(1, 1), (1, 200), (200, 1), (3, 5), (14, 14), (28, 28), (42, 70), (27, 29), (57, 90),
         (56, 56), (13, 640), (640, 480), (333, 777), (1000, 5), (97, 389), (1080, 90)]


def reference(image, spec, **changes):
    """What transformers makes of a Pillow image: (pixel_values, grid)."""
    processor = Qwen2VLImageProcessorPil(
        patch_size=spec.patch_size, temporal_patch_size=spec.temporal_patch_size,
        merge_size=spec.merge_size, image_mean=list(spec.mean), image_std=list(spec.std),
        size={"shortest_edge": spec.min_pixels, "longest_edge": spec.max_pixels}, **changes)
    out = processor(images=[image], return_tensors="np")
    return out["pixel_values"], tuple(int(n) for n in out["image_grid_thw"][0])


def noise(size, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


@pytest.mark.parametrize("size", SIZES, ids=lambda size: "x".join(map(str, size)))
@pytest.mark.parametrize("name", SPECS)
def test_patches_are_equal_to_the_last_bit(name, size):
    spec, image = SPECS[name], noise(size)
    expected, expected_grid = reference(Image.fromarray(image), spec)
    patches, grid = to_patches(image, spec)
    assert grid == expected_grid
    assert patches.dtype == expected.dtype == np.float32
    np.testing.assert_array_equal(patches.view(np.uint32), expected.view(np.uint32))


@pytest.mark.parametrize("size", SIZES, ids=lambda size: "x".join(map(str, size)))
def test_pixels_are_equal_after_resizing(size):
    """The reference without arithmetic on levels gives the pixels that it resized to."""
    image, spec = noise(size), SMALL
    levels, grid = reference(Image.fromarray(image), spec, do_rescale=False, do_normalize=False)
    height, width = (n * spec.patch_size for n in grid[1:])
    p, m = spec.patch_size, spec.merge_size
    pixels = levels.reshape(height // p // m, width // p // m, m, m, 3, 2, p, p)[:, :, :, :, :, 0]
    pixels = pixels.transpose(0, 2, 5, 1, 3, 6, 4).reshape(height, width, 3)
    np.testing.assert_array_equal(resize(image, spec), pixels)


def test_random_sizes_have_the_reference_grid():
    """More sizes than there is time to resize."""
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

    rng = np.random.default_rng(5)
    for height, width in np.exp(rng.uniform(0, 9, (3000, 2))).astype(int):
        if max(height, width) > 200 * min(height, width):
            continue
        for spec in SPECS.values():
            assert smart_size(int(height), int(width), spec) == smart_resize(
                int(height), int(width), spec.unit, spec.min_pixels, spec.max_pixels)


def with_alpha(levels):
    rgba = np.dstack([noise((40, 60)), levels]).astype(np.uint8)
    return Image.fromarray(rgba)


def palette_with_a_clear_colour():
    image = Image.fromarray(noise((40, 60))).quantize(16)
    image.info["transparency"] = 3
    return image


MODES = {
    "RGB": Image.fromarray(noise((40, 60))),
    "L": Image.fromarray(noise((40, 60))).convert("L"),
    "1": Image.fromarray(noise((40, 60))).convert("1"),
    "P": Image.fromarray(noise((40, 60))).quantize(32),
    "P with a clear colour": palette_with_a_clear_colour(),
    "LA": with_alpha(noise((40, 60), 1)[..., 0]).convert("LA"),
    "RGBA": with_alpha(noise((40, 60), 1)[..., 0]),
    "RGBA, opaque": with_alpha(np.full((40, 60), 255)),
    "CMYK": Image.fromarray(noise((40, 60))).convert("CMYK"),
}


@pytest.mark.parametrize("mode", MODES)
def test_files_of_every_mode_go_the_same_way(mode):
    """Through our intake; what is not opaque lies over white there, as in the reference."""
    file = io.BytesIO()
    MODES[mode].save(file, "JPEG" if mode == "CMYK" else "PNG")
    picture = load_picture(file.getvalue())
    expected, grid = reference(Image.open(io.BytesIO(file.getvalue())), SMALL)
    patches, ours = to_patches(picture.pixels, SMALL)
    assert ours == grid
    np.testing.assert_array_equal(patches.view(np.uint32), expected.view(np.uint32))


@pytest.mark.parametrize(("shape", "dtype", "message"), [
    ((8, 8), np.uint8, "expected"), ((8, 8, 4), np.uint8, "expected"),
    ((8, 8, 3), np.float32, "expected"), ((0, 8, 3), np.uint8, "8x0 pixels: it is empty"),
    ((8, 0, 3), np.uint8, "it is empty"), ((1, 201, 3), np.uint8, "aspect ratio above 200"),
    ((10_000, 1, 3), np.uint8, "1x10000 pixels: aspect ratio above 200; crop it first")])
def test_what_is_no_picture_is_refused(shape, dtype, message):
    with pytest.raises(ValueError, match=message):
        to_patches(np.zeros(shape, dtype), SMALL)


def test_a_refused_picture_takes_no_memory():
    image = np.broadcast_to(np.uint8(0), (1, 100_000_000, 3))    # 300 MB, were it copied
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="aspect ratio"):
            to_patches(image, SMALL)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("values", "message"), [
    ({"patch_size": 0}, "patch_size is 0"), ({"min_pixels": 0}, "min_pixels is 0"),
    ({"max_pixels": 3000}, "max_pixels 3000 is less than min_pixels 3136"),
    ({"min_pixels": 1, "max_pixels": 783}, "one image token of 28x28"),
    ({"std": (1.0, 0.0, 1.0)}, "must be positive")])
def test_impossible_sizes_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        PatchSpec(**values)
