"""The ladder: nested where it should be, counter-intuitive where it should be."""

import random

import pytest

from guardjax.policies import LADDER_LEVELS, Attributes, lint_policy, load_ladder
from guardjax.world.catalogue import CATEGORIES, CATEGORY_OF, CONTEXTS, HARMFUL, HELD_OUT_OBJECTS

LADDER = load_ladder()


def scenes(number, seed=0, most=8):
    rng = random.Random(seed)
    for _ in range(number):
        objects = rng.choices(list(CATEGORY_OF), k=rng.randrange(most + 1))
        context = {name: rng.choice(values) for name, values in CONTEXTS.items()}
        yield Attributes.of(objects, CATEGORY_OF, context)


def unsafe(level, attributes):
    return LADDER[level].judge(attributes).verdict == "unsafe"


def test_five_levels():
    assert tuple(LADDER) == LADDER_LEVELS == ("L1", "L2", "L3", "L4", "L5")
    assert len({policy.content_hash for policy in LADDER.values()}) == 5


def test_names_exist_in_the_world():
    values = {(name, value) for name, values in CONTEXTS.items() for value in values}
    for policy in LADDER.values():
        for rule in policy.rules:
            for condition in filter(None, (rule.when, rule.unless)):
                assert condition.names() <= set(CATEGORIES) | set(CATEGORY_OF)
                assert not condition.names() & set(HELD_OUT_OBJECTS)  # ordinary scenes lack them
                assert condition.contexts() <= values


def test_l2_to_l4_are_strictly_nested():
    growth = {"L2": 0, "L3": 0, "L4": 0}
    for attributes in scenes(4000):
        broken = [unsafe(level, attributes) for level in growth]
        assert broken == sorted(broken), attributes
        for level, is_broken in zip(growth, broken, strict=True):
            growth[level] += is_broken
    assert 0 < growth["L2"] < growth["L3"] < growth["L4"] < 4000


def test_l1_has_no_positives_even_in_a_picture_of_harm_alone():
    harmful = [name for name, category in CATEGORY_OF.items() if category in HARMFUL]
    everything = Attributes.of(harmful, CATEGORY_OF, {"place": "city", "light": "dark"})
    assert not unsafe("L1", everything) and unsafe("L4", everything)
    assert not any(unsafe("L1", attributes) for attributes in scenes(2000))
    heap = Attributes.of(["knife"] * 10, CATEGORY_OF, {"place": "city", "light": "dark"})
    assert LADDER["L1"].judge(heap).rule_ids == ("R1",)


@pytest.mark.parametrize(("objects", "l4", "l5"), [
    (["knife"], True, False), (["flame"], True, False), (["skull"], True, False),
    (["guitar"], False, True), (["candy"], False, True), (["dog"], False, True),
    (["shirt"], False, True), (["apple"], False, False), (["beer"], True, True),
])
def test_l5_bans_the_harmless_and_allows_the_harmful(objects, l4, l5):
    attributes = Attributes.of(objects, CATEGORY_OF, {"place": "city", "light": "bright"})
    assert (unsafe("L4", attributes), unsafe("L5", attributes)) == (l4, l5)


@pytest.mark.parametrize("level", LADDER_LEVELS)
def test_the_words_are_clean_and_short(level):
    policy = LADDER[level]
    assert lint_policy(policy, CATEGORY_OF) == []
    assert max(len(policy.render(seed).split()) for seed in range(20)) <= 60
    for rule in policy.rules:
        assert len(set(rule.wordings)) >= 3
        for condition in filter(None, (rule.when, rule.unless)):
            for name in condition.names():
                assert all(name in text for text in rule.wordings)
