"""What the model is asked: labels are executed, words stand where the picture would."""

from __future__ import annotations

import re

import numpy as np
import pytest

from guardjax.cli import compose
from guardjax.data import tasks
from guardjax.data.batching import load_batcher
from guardjax.data.prompts import encode_prompt
from guardjax.data.sources import IN_WORDS, BatchSource, SourceError, one_policy, varied_policies
from guardjax.policies import (
    Attributes,
    Has,
    Policy,
    Rule,
    Wording,
    load_ladder,
    make_splits,
    parse_verdict,
)
from guardjax.policies.condition import Is
from guardjax.train.config import EXAMPLE_KINDS
from guardjax.world import catalogue
from guardjax.world.builder import WorldRecord


def record(*objects: str, place: str = "garden", index: int = 0) -> WorldRecord:
    return WorldRecord(
        image=np.full((64, 64, 3), index, np.uint8),
        attributes=Attributes.of(
            objects, catalogue.CATEGORY_OF, {"place": place, "light": "dark"}),
        scene_id=f"s{index}", pair_id=f"p{index // 2}", role="before", edit_kind="remove",
        caption=f"{', '.join(objects)}. {place}, dark.",
        questions=(("is there a knife?", "no"),), mask=np.zeros((64, 64), bool), split="train",
        objects=objects, place=place, light="dark", photograph="x", artist="y")


HOUSE = Policy("house", "1", "t", (Rule("R1", Has("weapons")), Rule("R2", Has("alcohol"))))


@pytest.fixture(scope="module")
def batcher():
    return load_batcher(compose.model_dir("base"))


@pytest.fixture(scope="module")
def records():
    shown = [("dog", "knife"), ("dog", "spoon"), ("tea", "beer"), ("tea", "fox"),
             ("apple", "hat", "bomb"), ("apple", "hat", "balloon")]
    return [record(*objects, index=i) for i, objects in enumerate(shown)]


@pytest.fixture(scope="module")
def splits():
    return make_splits(catalogue.vocabulary())


def test_study_says_of_each_rule_whether_the_scene_keeps_it():
    rules = [Rule("R1", Has("weapons")), Rule("R2", Has("dog")), Rule("R3", Is("place", "city"))]
    example = tasks.study(record("knife", "tea"), [(rule, Wording(1)) for rule in rules])
    verdicts = re.findall(r":(safe|unsafe)\.", example.answer)
    assert verdicts == ["unsafe", "safe", "safe"]
    assert example.image is None and "knife" in example.facts["scene"]
    assert example.label is None, "it is no judged kind and must not count as one"


def test_spelling_keeps_the_objects_in_order_and_adds_only_the_background():
    scene = record("dog", "knife", "tea", place="city")
    for seed in range(50):
        words = tasks.spell(scene, np.random.default_rng(seed)).split()
        named = [word for word in words if word not in ("city", "dark")]
        assert list(dict.fromkeys(named)) == ["dog", "knife", "tea"]
        assert named == sorted(named, key=["dog", "knife", "tea"].index)
        assert all(1 <= named.count(word) <= 3 for word in set(named))


def test_words_stand_in_the_place_of_the_picture(batcher):
    scene = record("dog", "knife")
    policy = Policy("p", "1", "t", (Rule("R1", Has("dog")),))
    seen = tasks.judge(scene, policy, Wording(0))
    told = tasks.in_words(seen, "read", tasks.describe(scene))
    tokenizer = batcher.tokenizer
    ids_seen = encode_prompt(tokenizer, seen, 4, (512,)).ids
    ids_told = encode_prompt(tokenizer, told, 0, (512,)).ids
    pads = [i for i, token in enumerate(ids_seen) if token == tokenizer.image_pad_id]
    assert len(pads) == 4
    words = tokenizer.untrusted(tasks.describe(scene))
    assert ids_told == (*ids_seen[:pads[0]], *words, *ids_seen[pads[-1] + 1:])


@pytest.mark.parametrize("kind", EXAMPLE_KINDS)
def test_every_kind_that_a_config_may_name_makes_batches(kind, records, splits, batcher):
    source = BatchSource(records, varied_policies(splits), batcher, mixture={kind: 1.0}, batch=4,
                         num_batches=2, seed=0, spell_share=0.5, house=HOUSE)
    batch = source[1]
    assert len(batch.examples) == 4 and (batch.length > 0).all()
    assert (batch.prompts.vision is None) == (kind in IN_WORDS)
    again = source[1]
    np.testing.assert_array_equal(batch.tokens, again.tokens)
    np.testing.assert_array_equal(batch.prompts.prompt.tokens, again.prompts.prompt.tokens)


@pytest.mark.parametrize("flip_share", [0.0, 1.0])
def test_judged_prompts_come_with_opposite_labels(flip_share, records, splits, batcher):
    source = BatchSource(records, varied_policies(splits), batcher, mixture={"judge": 1.0},
                         batch=16, num_batches=4, seed=0, flip_share=flip_share)
    for index in range(4):
        labels = [example.label for example in source[index].examples]
        assert labels.count("unsafe") == 8
        for first, second in zip(labels[::2], labels[1::2], strict=True):
            assert {first, second} == {"safe", "unsafe"}


def test_batches_do_not_depend_on_the_process(records, splits, batcher):
    """What a policy is drawn for is told in one order; that of a set is another in each process."""
    draw, told = varied_policies(splits), []

    def noted(rng, names):
        told.append(list(names))
        return draw(rng, names)

    BatchSource(records, noted, batcher, mixture={"judge": 1.0}, batch=16, num_batches=1, seed=0,
                flip_share=0.0)[0]
    assert any(len(names) > 1 for names in told)
    assert all(names == sorted(names) for names in told)


def test_a_policy_that_flags_nothing_is_trained_on_safe_pairs(records, batcher):
    source = BatchSource(records, one_policy(load_ladder()["L1"]), batcher,
                         mixture={"judge": 1.0}, batch=8, num_batches=1, seed=0, flip_share=0.0)
    assert {example.label for example in source[0].examples} == {"safe"}


def test_a_policy_that_flags_all_pairs_alike_is_refused(batcher):
    same = [record("knife", index=0), record("knife", index=1)]
    with pytest.raises(SourceError, match="no edited pair in 400 draws"):
        BatchSource(same, one_policy(load_ladder()["L3"]), batcher, mixture={"judge": 1.0},
                    batch=2, num_batches=1, seed=0, flip_share=0.0)[0]


def test_quiz_answers_are_true_and_in_the_words_of_single_questions():
    scene = record("dog", "knife", "tea", place="city")
    shown, kinds = {"dog", "knife", "tea"}, {"animals", "weapons", "drinks"}
    answers: dict[str, list[str]] = {}
    for seed in range(100):
        text = tasks.quiz(scene, np.random.default_rng(seed)).answer
        lines = re.findall(r" ([^?]+\?) (\w+)\.", text)
        assert len(lines) == 8 and "".join(f" {q} {a}." for q, a in lines) == text
        for asked, told in lines:
            if match := re.fullmatch(r"is there an? (\w+)\?", asked):
                assert told == ("yes" if match[1] in shown else "no")
                answers.setdefault("object", []).append(told)
            elif match := re.fullmatch(r"any (\w+)\?", asked):
                assert told == ("yes" if match[1] in kinds else "no")
                answers.setdefault("kind", []).append(told)
            elif match := re.fullmatch(r"what kind is the (\w+)\?", asked):
                assert told == catalogue.CATEGORY_OF[match[1]]
            else:
                assert (asked, told) in {
                    ("how many objects?", "3"), ("where is it?", "city"),
                    ("bright or dark?", "dark")}
    for topic, told in answers.items():
        assert 0.4 < told.count("yes") / len(told) < 0.6, f"{topic}: one answer is the safe bet"


def test_a_habit_is_the_house_policy_whatever_policy_is_shown(records, splits, batcher):
    source = BatchSource(records, varied_policies(splits), batcher, mixture={"habit": 1.0},
                         batch=16, num_batches=4, seed=0, house=HOUSE)
    by_id = {r.scene_id: r for r in records}
    against = 0
    for index in range(4):
        batch = source[index]
        assert sum("unsafe" in e.answer for e in batch.examples) == 8
        for example in batch.examples:
            scene = by_id[example.image_id]
            verdict = parse_verdict(example.answer, example.facts["rules"])
            assert verdict.problem is None, "it cites rules that the policy shown has"
            assert verdict.outcome == HOUSE.judge(scene.attributes).verdict
            assert example.label is None, "it is no truth to be scored against"
            against += "weapons" not in example.policy_text
    assert against


def test_a_house_policy_that_never_speaks_is_refused(splits, batcher):
    source = BatchSource([record("dog"), record("fox", index=1)], varied_policies(splits), batcher,
                         mixture={"habit": 1.0}, batch=2, num_batches=1, seed=0, house=HOUSE)
    with pytest.raises(SourceError, match="no picture in 40 draws is unsafe under policy 'house'"):
        source[0]


@pytest.mark.parametrize("flip_share", [0.0, 1.0])
def test_pictures_come_under_many_policies_that_disagree(flip_share, records, splits, batcher):
    """Each picture's prompts branch from it; labels are balanced as they are two by two."""
    source = BatchSource(records, varied_policies(splits), batcher, mixture={"judge": 1.0},
                         batch=16, num_batches=3, seed=0, flip_share=flip_share,
                         policies_per_image=4)
    for index in range(3):
        batch = source[index]
        labels = np.array([example.label == "unsafe" for example in batch.examples])
        assert labels.sum() == 8 and batch.prompts.lead == (4, 4)
        assert batch.prompts.vision.frame.shape[0] == 4
        for first in range(0, 16, 4):
            group = batch.examples[first:first + 4]
            assert len({example.image_id for example in group}) == 1
            assert len({example.policy_text for example in group}) > 1
        if flip_share:
            assert (labels.reshape(4, 4).sum(1) == 2).all()
        else:
            pairs = labels.reshape(2, 2, 4)
            assert (pairs[:, 0] != pairs[:, 1]).all()
        np.testing.assert_array_equal(batch.tokens, source[index].tokens)


def test_other_kinds_do_not_branch(records, splits, batcher):
    source = BatchSource(records, varied_policies(splits), batcher, mixture={"caption": 1.0},
                         batch=8, num_batches=1, seed=0, policies_per_image=4)
    assert source[0].prompts.trunk is None


def test_policies_that_never_tell_a_pair_apart_are_refused(splits, batcher):
    same = [record("knife", index=0), record("knife", index=1)]
    source = BatchSource(same, varied_policies(splits), batcher, mixture={"judge": 1.0}, batch=4,
                         num_batches=1, seed=0, flip_share=0.0, policies_per_image=2)
    with pytest.raises(SourceError, match="opposite labels from 2 of these policies"):
        source[0]
