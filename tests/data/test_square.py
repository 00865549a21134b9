"""Pictures for LLaVA are those of transformers' own processors, to the last bit."""

import json

import numpy as np
import pytest
from PIL import Image
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from guardjax.data.processor import PROCESSOR_FILE, ProcessorError, load_square_processor
from guardjax.data.square import SquareSpec, to_square_patches

CLIP = SquareSpec(56)
SIGLIP = SquareSpec(62, crops=False, mean=(0.5,) * 3, std=(0.5,) * 3)
ODD = SquareSpec(33, 5, mean=(0.1, 0.2, 0.3), std=(0.3, 0.7, 1.0))
# (height, width): smaller and larger than the square, equal to it, slivers, halves that round.
SIZES = [(1, 1), (1, 200), (200, 1), (3, 5), (56, 56), (57, 90), (62, 62), (90, 57), (33, 34),
         (640, 480), (333, 777), (13, 640)]
# As the releases wrote them.
RELEASE = {"do_center_crop": True, "do_convert_rgb": True, "do_normalize": True, "do_rescale": True,
           "do_resize": True, "resample": 3, "rescale_factor": 0.00392156862745098,
           "image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 336},
           "crop_size": {"height": 336, "width": 336},
           "image_mean": [0.48145466, 0.4578275, 0.40821073],
           "image_std": [0.26862954, 0.26130258, 0.27577711]}
SIGLIP_RELEASE = {key: RELEASE[key] for key in RELEASE if not key.startswith(("do_center", "crop"))}
SIGLIP_RELEASE |= {"image_processor_type": "SiglipImageProcessorFast",
                   "size": {"height": 384, "width": 384},
                   "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}


def reference(image, spec):
    """What transformers makes of a picture: [3, H, W]."""
    square = {"height": spec.image_size, "width": spec.image_size}
    levels = {"image_mean": list(spec.mean), "image_std": list(spec.std)}
    processor = (
        CLIPImageProcessorPil(size={"shortest_edge": spec.image_size}, crop_size=square, **levels)
        if spec.crops else SiglipImageProcessorPil(size=square, **levels))
    return processor(images=[Image.fromarray(image)], return_tensors="np")["pixel_values"][0]


@pytest.mark.parametrize("spec", [CLIP, SIGLIP, ODD], ids=["clip", "siglip", "odd"])
@pytest.mark.parametrize("size", SIZES, ids=lambda size: "x".join(map(str, size)))
def test_patches_are_equal_to_the_last_bit(spec, size):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    patches, grid = to_square_patches(image, spec)
    side, patch = spec.side, spec.patch_size
    assert grid == (1, side, side) and patches.dtype == np.float32
    pixels = reference(image, spec)[:, :side * patch, :side * patch]
    cut = pixels.reshape(3, side, patch, side, patch).transpose(1, 3, 0, 2, 4)
    expected = np.ascontiguousarray(cut.reshape(side * side, -1))
    np.testing.assert_array_equal(patches.view(np.uint32), expected.view(np.uint32))


@pytest.mark.parametrize("image", [
    np.zeros((2, 401, 3), np.uint8), np.zeros((0, 4, 3), np.uint8), np.zeros((4, 4), np.uint8),
    np.zeros((4, 4, 3), np.float32)])
def test_what_is_no_picture_is_refused(image):
    with pytest.raises(ValueError, match="aspect ratio|expected .H, W, 3. uint8"):
        to_square_patches(image, CLIP)


@pytest.mark.parametrize(("config", "spec"), [
    (RELEASE, SquareSpec(336)),
    (RELEASE | {"image_processor_type": "CLIPImageProcessorFast"}, SquareSpec(336)),
    (SIGLIP_RELEASE, SquareSpec(384, crops=False, mean=(0.5,) * 3, std=(0.5,) * 3))])
def test_the_releases_files_are_read(tmp_path, config, spec):
    (tmp_path / PROCESSOR_FILE).write_text(json.dumps(config))
    assert load_square_processor(tmp_path, 14) == spec


@pytest.mark.parametrize(("changes", "message"), [
    ({"image_processor_type": "Qwen2VLImageProcessor"}, "is 'Qwen2VLImageProcessor'; only those"),
    ({"do_center_crop": False}, "do_center_crop is False; only True"),
    ({"resample": 2}, "resample is 2; only 3"),
    ({"size": {"height": 336, "width": 336}}, "must be an object with shortest_edge"),
    ({"crop_size": None}, "crop_size is None; it must be an object with height and width"),
    ({"size": {"shortest_edge": 224}}, "they must be one whole number"),
    ({"size": {"shortest_edge": 9}, "crop_size": {"height": 9, "width": 9}}, "patch_size 14 must"),
    ({"image_std": [1, 1, 0]}, "must be positive")])
def test_what_would_give_other_pictures_is_refused(tmp_path, changes, message):
    (tmp_path / PROCESSOR_FILE).write_text(json.dumps(RELEASE | changes))
    with pytest.raises(ProcessorError, match=message):
        load_square_processor(tmp_path, 14)
