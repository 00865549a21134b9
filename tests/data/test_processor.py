"""Every way releases wrote the image processor's config, read as transformers reads it."""

import json

import pytest
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from guardjax.data.images import MEAN, STD, PatchSpec
from guardjax.data.processor import (NESTED_FILE, PROCESSOR_FILE, ProcessorError, load_processor,
                                     save_processor)

# As the 7B release wrote it, as transformers 4.5x saved a fine-tuned model, and the nested one.
RELEASE = {"min_pixels": 3136, "max_pixels": 12845056, "patch_size": 14, "temporal_patch_size": 2,
           "merge_size": 2, "image_mean": list(MEAN), "image_std": list(STD),
           "image_processor_type": "Qwen2VLImageProcessor",
           "processor_class": "Qwen2_5_VLProcessor"}
TUNED = RELEASE | {
    "image_processor_type": "Qwen2VLImageProcessorFast", "crop_size": None, "do_center_crop": None,
    "default_to_square": True, "do_convert_rgb": True, "do_normalize": True, "do_rescale": True,
    "do_resize": True, "resample": 3, "rescale_factor": 0.00392156862745098,
    "size": {"longest_edge": 12845056, "shortest_edge": 3136}}
SIZE_ONLY = {key: value for key, value in TUNED.items() if key not in ("min_pixels", "max_pixels")}


def write(folder, config, name=PROCESSOR_FILE):
    (folder / name).write_text(json.dumps(config), encoding="utf-8")
    return folder


@pytest.mark.parametrize("config", [RELEASE, TUNED, SIZE_ONLY])
def test_all_releases_mean_the_same(tmp_path, config):
    assert load_processor(write(tmp_path, config)) == PatchSpec(max_pixels=12845056)


@pytest.mark.parametrize("config", [
    {}, {"min_pixels": 6272}, {"size": {"shortest_edge": 6272, "longest_edge": 50176}},
    {"size": {"shortest_edge": 6272, "longest_edge": 50176}, "max_pixels": 62720}])
def test_precedence_is_that_of_transformers(tmp_path, config):
    spec = load_processor(write(tmp_path, config))
    size = Qwen2VLImageProcessorPil(**json.loads(json.dumps(config))).size
    assert (spec.min_pixels, spec.max_pixels) == (size["shortest_edge"], size["longest_edge"])


def test_the_nested_section_comes_first(tmp_path):
    write(tmp_path, RELEASE)
    write(tmp_path, {"processor_class": "Qwen2_5_VLProcessor"}, NESTED_FILE)
    assert load_processor(tmp_path).max_pixels == 12845056
    write(tmp_path, {"image_processor": RELEASE | {"max_pixels": 50176}}, NESTED_FILE)
    assert load_processor(tmp_path).max_pixels == 50176


@pytest.mark.parametrize("spec", [PatchSpec(), PatchSpec(
    patch_size=8, temporal_patch_size=1, merge_size=3, min_pixels=1000, max_pixels=9000,
    mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))])
def test_what_is_written_is_read_back_here_and_there(tmp_path, spec):
    save_processor(spec, tmp_path)
    assert load_processor(tmp_path) == spec
    theirs = Qwen2VLImageProcessorPil.from_pretrained(tmp_path)
    assert (theirs.patch_size, theirs.temporal_patch_size, theirs.merge_size) == (
        spec.patch_size, spec.temporal_patch_size, spec.merge_size)
    assert dict(theirs.size) == {"shortest_edge": spec.min_pixels, "longest_edge": spec.max_pixels}
    assert (tuple(theirs.image_mean), tuple(theirs.image_std)) == (spec.mean, spec.std)
    theirs.save_pretrained(tmp_path)
    assert load_processor(tmp_path) == spec


@pytest.mark.parametrize(("changes", "message"), [
    ({"image_processor_type": "CLIPImageProcessor"}, "is 'CLIPImageProcessor'; only"),
    ({"do_resize": False}, "do_resize is False; only True is supported"),
    ({"resample": 2}, "resample is 2; only 3"), ({"rescale_factor": 1.0}, "rescale_factor is 1.0"),
    ({"do_center_crop": True}, "do_center_crop is True"),
    ({"patch_size": "14"}, "patch_size is '14'; it must be a whole number"),
    ({"max_pixels": 100}, "max_pixels 100 is less than min_pixels 3136"),
    ({"image_mean": [0.5]}, "image_mean is .0.5.; it must be three numbers"),
    ({"image_std": [1, 1, float("nan")]}, "image_std is .1, 1, nan.; it must be three numbers"),
    ({"size": 224}, "size is 224; it must be an object with shortest_edge"),
    ({"image_std": [1, 1, 0]}, "must be positive")])
def test_what_would_give_other_patches_is_refused(tmp_path, changes, message):
    with pytest.raises(ProcessorError, match=message):
        load_processor(write(tmp_path, RELEASE | changes))


def test_missing_and_broken_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="has no preprocessor_config.json"):
        load_processor(tmp_path)
    for text in ("{", "[]", "\0"):
        (tmp_path / PROCESSOR_FILE).write_text(text)
        with pytest.raises(ProcessorError, match="is not"):
            load_processor(tmp_path)
