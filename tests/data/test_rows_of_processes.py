"""The rows that several processes make of a batch, put together, are the batch of one process."""

import dataclasses

import jax
import numpy as np
import pytest
from PIL import Image

from guardjax.cli import compose
from guardjax.data.batching import load_batcher
from guardjax.data.branching import branch_prompts
from guardjax.data.datasets.batches import RecordBatches, RecordMix
from guardjax.data.datasets.registry import open_dataset
from guardjax.data.matched_pairs import MatchedPairs
from guardjax.data.prompts import IMAGE_FIRST, POLICY_FIRST
from guardjax.data.sources import BatchSource, varied_policies
from guardjax.policies import Attributes, make_splits, parse_policy
from guardjax.types import PolicyExample
from guardjax.world import catalogue
from guardjax.world.builder import WorldRecord
from tests.data import dataset_files as files

BATCH = 16
SHOWN = [("dog", "knife"), ("dog", "spoon"), ("tea", "beer"), ("tea", "fox"),
         ("apple", "hat", "bomb"), ("apple", "hat", "balloon")]


@pytest.fixture(scope="module", name="batcher")
def _batcher():
    return load_batcher(compose.model_dir("base"))


def record(index, objects):
    """A picture of its own aspect, so that rows alone would be of other shapes."""
    rng = np.random.default_rng(index)
    return WorldRecord(
        image=rng.integers(0, 256, (64, 64 + 64 * index, 3), np.uint8),
        attributes=Attributes.of(
            objects, catalogue.CATEGORY_OF, {"place": "garden", "light": "dark"}),
        scene_id=f"s{index}", pair_id=f"p{index // 2}", role="before", edit_kind="remove",
        caption=f"{', '.join(objects)}. garden, dark.", questions=(), mask=np.zeros((64, 64), bool),
        split="train", objects=objects, place="garden", light="dark", photograph="x", artist="y")


def own(folder):
    """A person's folder whose pictures have several aspects."""
    files.own(folder)
    for i in range(12):
        size = (40 + 30 * (i % 3), 40 + 25 * (i % 4))
        Image.fromarray(files.pixels(i, size)).save(folder / f"pictures/{i}.png")
    return open_dataset("own", folder, "all", policy=parse_policy(files.OWN_POLICY))


def llavaguard(folder):
    """Policies of several lengths, by exceptions."""
    files.llavaguard(folder)
    return open_dataset("llavaguard", folder)


def records_of(make, mix, teach):
    def source(folder, batcher, rows):
        return RecordBatches(make(folder), batcher, batch=BATCH, num_batches=3, seed=1, mix=mix,
                             teach=teach, rows=rows)
    return source


def matched(folder, batcher, rows):
    del folder
    records = [record(i, objects) for i, objects in enumerate(SHOWN)]
    return MatchedPairs(records, varied_policies(make_splits(catalogue.vocabulary())), batcher,
                        batch=BATCH, num_batches=3, seed=0, rows=rows)


def branching(kind):
    def source(folder, batcher, rows):
        del folder
        records = [record(i, objects) for i, objects in enumerate(SHOWN)]
        return BatchSource(
            records, varied_policies(make_splits(catalogue.vocabulary())), batcher,
            mixture={kind: 1.0}, batch=BATCH, num_batches=3, seed=0, policies_per_image=4,
            rows=rows)
    return source


def check_together(whole, parts):
    """Asserts that the parts' leaves, one after another, are those of the whole."""
    assert len({jax.tree.structure(part) for part in parts}) == 1
    joined = jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)
    jax.tree.map(np.testing.assert_array_equal, joined, whole)


@pytest.mark.parametrize("source", [
    records_of(own, RecordMix(), teach=True),
    records_of(llavaguard, RecordMix(flips=0.0, exceptions=0.5), teach=False),
    matched, branching("judge"), branching("caption"),
], ids=["own", "llavaguard", "matched", "many_policies", "caption"])
@pytest.mark.parametrize("processes", [2, 4])
def test_rows_together_are_the_batch(source, processes, batcher, tmp_path):
    share = BATCH // processes
    sources = [source(tmp_path, batcher, slice(k * share, (k + 1) * share))
               for k in range(processes)]
    alone = source(tmp_path, batcher, slice(None))
    for index in range(3):
        whole, parts = alone[index], [each[index] for each in sources]
        for part in parts:
            assert [e.example_id for e in part.examples] == [e.example_id for e in whole.examples]
            assert part.tokens.shape[0] == share
        check_together((whole.prompts, whole.tokens, whole.length),
                       [(part.prompts, part.tokens, part.length) for part in parts])


def prompts_of(template):
    """Four trunks of two prompts; in the last two nothing is shown."""
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (64, 64 + 80 * i, 3), np.uint8) for i in range(2)]
    chosen = [(t, m) if template == POLICY_FIRST else (m, t) for t in range(4) for m in range(2)]
    return [PolicyExample(f"{i}", "judge", "safe?", "R1: no knife. " * (1 + policy),
                          image=pictures[picture % 2] if i < 4 else None)
            for i, (policy, picture) in enumerate(chosen)]


@pytest.mark.parametrize("template", [IMAGE_FIRST, POLICY_FIRST])
def test_branches_of_some_rows_have_the_whole_batchs_shapes(template, batcher):
    batcher = dataclasses.replace(batcher, template=template)
    examples = prompts_of(template)
    parts = [branch_prompts(batcher, examples, 2, rows)
             for rows in (slice(0, 2), slice(2, 4), slice(4, 8))]
    check_together(branch_prompts(batcher, examples, 2), parts)
    with pytest.raises(ValueError, match="rows 0 to 3 cut apart prompts of one trunk, which has 2"):
        branch_prompts(batcher, examples, 2, slice(0, 3))
