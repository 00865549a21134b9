"""Lengths: what is too long says what would do, and a folder keeps what its model needs."""

import dataclasses
import json
import re
import shutil

import numpy as np
import pytest

from guardjax.cli.assets import model_dir
from guardjax.data.batching import PromptError, load_batcher, save_batcher
from guardjax.data.images import PatchSpec
from guardjax.data.lengths import (
    ANSWER_BUCKETS,
    LENGTHS_FILE,
    PATCH_BUCKETS,
    PROMPT_BUCKETS,
    KeptLengths,
    LengthsError,
    buckets_for,
    load_lengths,
    wider,
)
from guardjax.layout import bucket
from guardjax.types import PolicyExample


@pytest.fixture(scope="module", name="batcher")
def _batcher():
    return load_batcher(model_dir("base"))


@pytest.fixture(name="folder")
def _folder(tmp_path):
    """The shipped base without its weights."""
    return shutil.copytree(model_dir("base"), tmp_path / "model",
                           ignore=shutil.ignore_patterns("*.safetensors"))


def example(name, policy, answer=""):
    return PolicyExample(name, "judge", "safe?", policy, answer=answer,
                         image=np.zeros((64, 64, 3), np.uint8))


def suggested(error, key):
    """The value that a message gives for a config key."""
    return tuple(map(int, re.search(rf"lengths\.{key}=([\d,]+)", str(error)).group(1).split(",")))


@pytest.mark.parametrize("name", ["base", "guard"])
def test_the_shipped_models_have_the_lengths_they_were_measured_with(name):
    batcher = load_batcher(model_dir(name))
    assert batcher.prompt_buckets == (48, 64, 80, 96, 128, 192, 256, 512)
    assert batcher.patch_buckets == (64, 256, 1024, 4096) == PATCH_BUCKETS
    assert batcher.answer_buckets == (12, 24, 48, 64, 96)
    assert batcher.answer_limit == 32


def test_steps_grow_by_half_at_most():
    assert wider((96,), 300) == (96, 128, 192, 256, 384)
    assert wider((100, 130), 129) == (100, 130) and wider((1,), 7) == (1, 2, 3, 4, 6, 8)
    rng = np.random.default_rng(0)
    for _ in range(200):
        first, length = (int(n) for n in rng.integers(1, 5000, 2))
        sizes = wider((first,), length)
        assert sizes[0] == first and sizes[-1] >= length
        assert all(a < b <= max(1.5 * a, a + 1) for a, b in zip(sizes, sizes[1:]))
        assert len(sizes) == 1 or sizes[-2] < length


def test_less_than_a_third_of_a_long_prompt_is_padding():
    prompts, _ = buckets_for(PatchSpec(), 4)
    assert prompts == (64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048)
    assert buckets_for(PatchSpec(max_pixels=12_845_056), 4)[0] == (
        *prompts, 4096, 8192, 16384, 32768)
    for length in range(65, 2049):
        assert 1 - length / bucket(length, prompts) < 1 / 3


@pytest.mark.parametrize("words", [200, 900])
def test_a_prompt_that_is_too_long_says_what_would_do(batcher, words):
    long = example("own/train/7", "R1: no knife. " * words)
    with pytest.raises(PromptError, match="example own/train/7: the prompt has") as caught:
        batcher.prompts([example("short", "R1: no knife."), long])
    assert "the limit is 512" in str(caught.value) and "Nothing is truncated" in str(caught.value)
    length = int(re.search(r"has (\d+) tokens", str(caught.value)).group(1))
    larger = dataclasses.replace(batcher, prompt_buckets=suggested(caught.value, "prompt"))
    padded = larger.prompts([long]).prompt
    assert padded.mask.sum() == length and padded.tokens.shape[1] < 1.5 * length
    assert larger.prompt_buckets[:8] == batcher.prompt_buckets


def test_an_answer_that_is_too_long_says_what_would_do(batcher):
    texts = [["safe"], [" no knife" * 150], [" no knife" * 60]]
    with pytest.raises(PromptError, match="example b: its answer has 301 tokens") as caught:
        batcher.answers(texts, ids=["a", "b", "c"])
    assert "the limit is 96" in str(caught.value) and "Nothing is truncated" in str(caught.value)
    larger = dataclasses.replace(batcher, answer_buckets=suggested(caught.value, "answer"))
    tokens, length = larger.answers(texts)
    assert length[1, 0] == 301 and tokens.shape == (3, 1, 384)
    with pytest.raises(PromptError, match="its answer has 301 tokens"):    # of other rows, too:
        batcher.answers(texts, slice(0, 1), ids=["a", "b", "c"])           # processes agree


def test_all_answers_can_be_checked_before_any_is_asked_for(batcher):
    examples = [example(name, "", " no knife" * times)
                for name, times in (("a", 2), ("b", 60), ("c", 70), ("d", 47))]
    batcher.check_answers([*examples[:1], examples[3]])     # 95 tokens and the end
    with pytest.raises(PromptError, match="example c: its answer has 141 tokens, the end included"):
        batcher.check_answers(examples)


def test_a_folder_keeps_what_goes_beyond_the_usual(batcher, folder):
    chosen = dataclasses.replace(batcher, prompt_buckets=(128, 700, 3000), answer_buckets=(320,),
                                 answer_limit=320)
    save_batcher(chosen, folder)
    assert json.loads((folder / LENGTHS_FILE).read_text()) == {
        "prompt": [700, 3000], "answer": [320], "answer_limit": 320}
    found = load_batcher(folder)
    assert found.prompt_buckets == (*PROMPT_BUCKETS, 700, 3000)     # short ones stay cheap
    assert found.answer_buckets == (*ANSWER_BUCKETS, 320) and found.answer_limit == 320
    again = folder.parent / "again"
    save_batcher(found, again)
    assert (again / LENGTHS_FILE).read_bytes() == (folder / LENGTHS_FILE).read_bytes()


def test_a_folder_of_usual_or_smaller_lengths_keeps_none(batcher, tmp_path):
    """A run that padded all to one length is no reason to refuse a longer prompt later."""
    for name, chosen in (("usual", batcher), ("smaller", dataclasses.replace(
            batcher, prompt_buckets=(64, 256), answer_buckets=(12,)))):
        save_batcher(chosen, tmp_path / name)
        assert not (tmp_path / name / LENGTHS_FILE).exists()
        assert load_lengths(tmp_path / name) == KeptLengths()


@pytest.mark.parametrize(("text", "message"), [
    ("{", "is not JSON"), ("[]", "is not a JSON object"),
    ('{"prompts": [700]}', "unknown prompts; it may have prompt, answer, answer_limit"),
    ('{"prompt": 700}', "prompt must be a list of whole numbers, got 700"),
    ('{"answer": [true]}', r"answer must be a list of whole numbers, got \[True\]"),
    ('{"prompt": [900, 700]}', r"prompt must be positive lengths that ascend.* \[900, 700\]"),
    ('{"answer_limit": 0}', "answer_limit must be a positive number of tokens, got 0")])
def test_a_broken_file_is_refused(folder, text, message):
    (folder / LENGTHS_FILE).write_text(text)
    with pytest.raises(LengthsError, match=f"lengths.json.*{message}"):
        load_batcher(folder)
