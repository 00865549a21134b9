"""The parts of a model directory fit each other, and its buckets hold every picture."""

import json
import shutil

import jax
import numpy as np
import pytest

from guardjax import layout
from guardjax.cli.assets import model_dir
from guardjax.data.batching import load_batcher
from guardjax.data.images import PatchSpec, patch_grid, smart_size, to_patches
from guardjax.data.lengths import PATCH_BUCKETS, PROMPT_BUCKETS, buckets_for
from guardjax.data.processor import PROCESSOR_FILE, ProcessorError
from guardjax.data.tokenizer import TokenizerError
from guardjax.types import PolicyExample


@pytest.fixture(name="folder")
def _folder(tmp_path):
    """The shipped base without its weights."""
    return shutil.copytree(model_dir("base"), tmp_path / "model",
                           ignore=shutil.ignore_patterns("*.safetensors"))


def change(file, **values):
    """Changes keys of a JSON file; `text__x` is key `x` in section `text`."""
    config = json.loads(file.read_text())
    for name, value in values.items():
        *section, key = name.split("__")
        (config[section[0]] if section else config)[key] = value
    file.write_text(json.dumps(config))


def test_a_tokenizer_that_does_not_fit_is_refused(folder):
    tokenizer = load_batcher(folder).tokenizer
    size, file = tokenizer.vocab_size, folder / "config.json"
    change(file, text_config__vocab_size=size)
    load_batcher(folder)
    change(file, text_config__vocab_size=size - 1)
    message = f"ids up to {size - 1} and the model's embedding has {size - 1} rows"
    with pytest.raises(TokenizerError, match=message):
        load_batcher(folder)
    change(file, text_config__vocab_size=size, image_token_id=5)
    message = f"is {tokenizer.image_pad_id} in the tokenizer and 5 in config.json"
    with pytest.raises(TokenizerError, match=message):
        load_batcher(folder)


def test_a_tokenizer_without_the_marks_is_refused(folder):
    file = folder / "tokenizer.json"
    file.write_text(file.read_text().replace("<|image_pad|>", "<|other_pad|>"))
    with pytest.raises(TokenizerError, match=r"lacks <\|image_pad\|>"):
        load_batcher(folder)
    file.write_text("{}")
    with pytest.raises(TokenizerError, match="files cannot be read .tokenizer.json"):
        load_batcher(folder)
    file.unlink()
    with pytest.raises(TokenizerError, match="has no tokenizer.json"):
        load_batcher(folder)


@pytest.mark.parametrize(("values", "message"), [
    ({"patch_size": 14}, "processor has patch_size 14 and the model patch_size 8"),
    ({"merge_size": 1}, "processor has merge_size 1 and the model spatial_merge_size 2"),
    ({"temporal_patch_size": 1}, "temporal_patch_size 1 and the model temporal_patch_size 2")])
def test_a_processor_that_does_not_fit_is_refused(folder, values, message):
    change(folder / PROCESSOR_FILE, **values)
    with pytest.raises(ProcessorError, match=message):
        load_batcher(folder)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"vision_config": 3}'])
def test_a_broken_config_is_refused(folder, text):
    (folder / "config.json").write_text(text)
    with pytest.raises(ProcessorError, match="config.json"):
        load_batcher(folder)


def test_small_pictures_keep_the_buckets_of_the_module():
    spec = PatchSpec(patch_size=8, min_pixels=4096, max_pixels=4096)
    assert buckets_for(spec, 2) == (PROMPT_BUCKETS, PATCH_BUCKETS)


@pytest.mark.parametrize(("spec", "window_units"), [
    (PatchSpec(max_pixels=12_845_056), 4), (PatchSpec(), 4),
    (PatchSpec(max_pixels=280 * 28 * 28), 4),
    (PatchSpec(patch_size=8, min_pixels=64, max_pixels=96 * 96), 2),
    (PatchSpec(patch_size=8, min_pixels=64, max_pixels=1024 * 1024), 7)])
def test_buckets_hold_every_picture(spec, window_units):
    """Sizes of every shape, the worst being slivers, in few buckets; memory is not taken."""
    prompts, patches = buckets_for(spec, window_units)
    assert len(prompts) * (1 + len(patches)) <= 120
    rng = np.random.default_rng(0)
    aspects = np.exp(rng.uniform(-np.log(200), np.log(200), 60))
    sizes = [(int((pixels / aspect)**0.5), int((pixels * aspect)**0.5))
             for aspect in (*aspects, 1 / 199.9, 1, 199.9)
             for pixels in (spec.max_pixels, 4 * spec.max_pixels)]
    sliver = int(1.49 * spec.unit)      # is rounded to one unit, and longer than one unit may be
    lengths = (200 * sliver, spec.max_pixels // spec.unit)
    sizes += [(sliver, length) for length in lengths] + [(length, sliver) for length in lengths]
    for height, width in sizes:
        if max(height, width) > 200 * max(1, min(height, width)):
            continue
        rows, columns = (n // spec.unit for n in smart_size(height, width, spec))
        slots = -(-rows // window_units) * -(-columns // window_units) * window_units**2
        layout.bucket(slots * spec.merge_size**2, patches)
        assert rows * columns + PROMPT_BUCKETS[-1] // 2 <= prompts[-1]


def test_rows_are_those_of_the_whole_batch_in_its_shapes():
    """Processes that make some rows each must agree on every shape, and make the same rows."""
    batcher = load_batcher(model_dir("base"))
    rng = np.random.default_rng(0)
    examples = [
        PolicyExample(f"{i}", "judge", "safe?", "R1: no knife. " * (1 + i % 3),
                      image=None if i == 5 else rng.integers(
                          0, 256, (64, 64 + 40 * i, 3), np.uint8))
        for i in range(6)]
    texts = [["safe " * (1 + i)] for i in range(6)]
    whole, (tokens, length) = batcher.prompts(examples), batcher.answers(texts)
    for rows in (slice(0, 2), slice(2, 6), slice(5, 6)):
        part = batcher.prompts(examples, rows)
        jax.tree.map(np.testing.assert_array_equal, part,
                     jax.tree.map(lambda leaf, rows=rows: leaf[rows], whole))
        found = batcher.answers(texts, rows)
        np.testing.assert_array_equal(found[0], tokens[rows])
        np.testing.assert_array_equal(found[1], length[rows])


def test_the_grid_of_a_picture_is_known_before_it_is_cut():
    batcher = load_batcher(model_dir("base"))
    for height, width in ((64, 64), (31, 200), (500, 320), (7, 9)):
        image = np.zeros((height, width, 3), np.uint8)
        assert patch_grid(image, batcher.patches) == to_patches(image, batcher.patches)[1]
