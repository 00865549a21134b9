"""Matched pairs for BP-Adapt, and the token at which an answer decides."""

import numpy as np
import pytest

from guardjax.cli import compose
from guardjax.data.batching import load_batcher
from guardjax.data.decision import decision_of
from guardjax.data.matched_pairs import MatchedPairs
from guardjax.data.sources import SourceError, one_policy, varied_policies
from guardjax.data.tokenizer import TokenizerError
from guardjax.policies import Attributes, Has, Policy, Rule, Wording, make_splits
from guardjax.world import catalogue
from guardjax.world.builder import WorldRecord


def record(index: int, *objects: str) -> WorldRecord:
    return WorldRecord(
        image=np.full((64, 64, 3), index, np.uint8),
        attributes=Attributes.of(
            objects, catalogue.CATEGORY_OF, {"place": "garden", "light": "dark"}),
        scene_id=f"s{index}", pair_id=f"p{index // 2}", role="before", edit_kind="remove",
        caption=f"{', '.join(objects)}. garden, dark.", questions=(), mask=np.zeros((64, 64), bool),
        split="train", objects=objects, place="garden", light="dark", photograph="x", artist="y")


@pytest.fixture(scope="module")
def batcher():
    return load_batcher(compose.model_dir("base"))


@pytest.fixture(scope="module")
def records():
    shown = [("dog", "knife"), ("dog", "spoon"), ("tea", "beer"), ("tea", "fox")]
    return [record(i, *objects) for i, objects in enumerate(shown)]


def source_of(records, batcher, draw=None, seed=0, batch=16):
    draw = draw or varied_policies(make_splits(catalogue.vocabulary()))
    return MatchedPairs(records, draw, batcher, batch=batch, num_batches=4, seed=seed)


def test_every_two_are_one_picture_that_is_passed_then_blocked(records, batcher):
    source, by_id = source_of(records, batcher), {r.scene_id: r for r in records}
    assert len(source) == 4
    pictures = set()
    for index in range(4):
        batch = source[index]
        assert len(batch.examples) == 16 and batch.prompts.vision is not None
        for k in range(0, 16, 2):
            one, other = batch.examples[k:k + 2]
            assert (one.label, other.label) == ("safe", "unsafe")
            assert one.image_id == other.image_id and one.policy_text != other.policy_text
            assert one.image is other.image is by_id[one.image_id].image
            assert one.answer == "<answer>safe</answer>" and other.rule_ids
            pictures.add(one.image_id)
    assert len(pictures) > 1


def test_a_batch_follows_from_seed_and_index(records, batcher):
    def texts(source, index):
        return [e.policy_text for e in source[index].examples]

    one, other = source_of(records, batcher), source_of(records, batcher)
    other[0]        # the order of asking does not matter
    assert texts(one, 2) == texts(other, 2)
    np.testing.assert_array_equal(one[2].tokens, other[2].tokens)
    assert texts(one, 2) != texts(one, 1)
    assert texts(one, 2) != texts(source_of(records, batcher, seed=1), 2)


def test_a_picture_that_all_policies_judge_alike_is_skipped(batcher):
    ban = {name: Policy(name, "1", "t", (Rule("R1", Has(name)),)) for name in ("dog", "fox")}

    def draw(rng, names):
        return ban[("dog", "fox")[int(rng.integers(2))]], Wording(0)

    mixed = [record(0, "tea"), record(1, "dog", "fox"), record(2, "dog")]
    found = {e.image_id for i in range(4) for e in source_of(mixed, batcher, draw)[i].examples}
    assert found == {"s2"}


def test_what_cannot_be_paired_is_refused(records, batcher):
    with pytest.raises(SourceError, match="batch=3 is odd"):
        source_of(records, batcher, batch=3)
    alone = one_policy(Policy("p", "1", "t", (Rule("R1", Has("dog")),)))
    with pytest.raises(SourceError, match="none of 100 pictures gets two labels from 4 policies"):
        source_of(records, batcher, alone)[0]


def test_the_decision_is_the_verdict_word(batcher):
    found, tokenizer = decision_of(batcher.tokenizer), batcher.tokenizer
    assert [tokenizer.decode([token]) for token in (found.safe, found.unsafe)] == ["safe", "unsafe"]
    for text, token in (("safe", found.safe), ("unsafe: R7, R3", found.unsafe)):
        ids = tokenizer.untrusted(f"<answer>{text}</answer>")
        assert ids[found.position] == token and tokenizer.decode(ids[:found.position]) == "<answer>"


class Whole:
    """A tokenizer that takes every answer for one token."""

    def untrusted(self, text: str) -> list[int]:
        return [int.from_bytes(text.encode())]


class Blind:
    """A tokenizer that sees nothing but the tags."""

    def untrusted(self, text: str) -> list[int]:
        return [1, 2]


@pytest.mark.parametrize("tokenizer", [Whole(), Blind()])
def test_a_tokenizer_without_a_decision_is_refused(tokenizer):
    with pytest.raises(TokenizerError, match="do not part at one token with this tokenizer"):
        decision_of(tokenizer)
