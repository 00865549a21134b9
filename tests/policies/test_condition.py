"""Conditions: execution, refusals, and a normal form that never joins what differs."""

import json
import pickle
import random

import pytest

from guardjax.policies import All, AnyOf, Attributes, Has, Is, MissingAttribute, Not, OtherThan
from guardjax.policies.cases import distinct_scenes
from tests.policies.vocab import VOCABULARY, random_picture

PICTURE = Attributes.of(
    ["knife", "knife", "dog"], VOCABULARY.category_of, {"place": "garden", "light": "dark"}
)


def random_condition(rng, depth=2, other_than=True):
    leaves = ["has", "has", "count", "most", "is"] + (["other"] if other_than else [])
    kind = rng.choice(leaves + ["all", "any", "not"] * (depth > 0))
    name = rng.choice(["knife", "weapons", "dog", "beer"])
    if kind == "has":
        return Has(name)
    if kind == "count":
        return Has(name, at_least=rng.choice((2, 3)))
    if kind == "most":
        return Has(name, at_least=rng.choice((0, 1)), at_most=rng.choice((1, 2)))
    if kind == "is":
        return rng.choice([Is("place", "garden"), Is("place", "home"), Is("light", "dark")])
    if kind == "other":
        return OtherThan(tuple(rng.sample(["animals", "food", "knife", "beer"], 2)))
    if kind == "not":
        return Not(random_condition(rng, depth - 1, other_than))
    parts = tuple(
        random_condition(rng, depth - 1, other_than) for _ in range(rng.choice((1, 2, 3)))
    )
    return All(parts) if kind == "all" else AnyOf(parts)


def test_attributes_count_objects_and_their_categories():
    assert PICTURE.counts == {"knife": 2, "weapons": 2, "dog": 1, "animals": 1}
    assert PICTURE.objects == {"knife", "dog"}
    assert pickle.loads(pickle.dumps(PICTURE)) == PICTURE  # data workers send them about


@pytest.mark.parametrize(("condition", "expected"), [
    (Has("knife"), True),
    (Has("weapons", at_least=2), True),
    (Has("weapons", at_least=3), False),
    (Has("knife", at_most=1), False),
    (Has("beer"), False),
    (Has("beer", at_least=0, at_most=0), True),
    (Is("place", "garden"), True),
    (Is("light", "bright"), False),
    (All((Has("knife"), Has("dog"))), True),
    (All((Has("knife"), Has("beer"))), False),
    (AnyOf((Has("beer"), Has("dog"))), True),
    (AnyOf((Has("beer"), Has("wine"))), False),
    (Not(Has("beer")), True),
    (OtherThan(("animals", "knife")), False),
    (OtherThan(("animals",)), True),
    (OtherThan(("weapons", "dog")), False),
])
def test_holds(condition, expected):
    assert condition.holds(PICTURE) is expected
    assert Not(condition).holds(PICTURE) is not expected


@pytest.mark.parametrize("condition", [
    Is("weather", "rain"),
    AnyOf((Has("knife"), Is("weather", "rain"))),
    All((Has("beer"), Is("weather", "rain"))),
])
def test_missing_context_is_named_wherever_it_stands(condition):
    with pytest.raises(MissingAttribute, match="'weather'.*'light', 'place'"):
        condition.holds(PICTURE)


def test_an_allow_list_is_not_judged_on_counts_alone():
    # Called "no other object", the picture would be safe by ignorance.
    with pytest.raises(MissingAttribute, match="Attributes.of"):
        OtherThan(("dog",)).holds(Attributes({"knife": 1}))


def test_unknown_object_and_name_clash_are_refused():
    with pytest.raises(MissingAttribute, match="'unicorn'"):
        Attributes.of(["unicorn"], VOCABULARY.category_of)
    with pytest.raises(ValueError, match="both an object and a category"):
        Attributes.of(["fire", "bomb"], {"fire": "nature", "bomb": "fire"})


@pytest.mark.parametrize(("make", "message"), [
    (lambda: Has("Knife"), "'Knife'.*lower-case"),
    (lambda: Has("two words"), "'two words'"),
    (lambda: Has("knife", at_least=-1), "-1"),
    (lambda: Has("knife", at_least=True), "True"),
    (lambda: Has("knife", at_least=3, at_most=2), "at least 3 and at most 2"),
    (lambda: Has("knife", at_least=0), "always holds"),
    (lambda: Is("place", ""), "'place'"),
    (lambda: All(()), "no parts"),
    (lambda: AnyOf(("knife",)), "not a condition"),
    (lambda: Not("knife"), "not a condition"),
    (lambda: OtherThan(()), "allows nothing"),
])
def test_nonsense_is_refused_with_its_value(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_conditions_are_hashable_and_lists_become_tuples():
    assert len({All([Has("knife"), Has("dog")]), All((Has("knife"), Has("dog")))}) == 1


def test_names_and_contexts():
    condition = All((Has("knife"), Not(AnyOf((Is("place", "home"), OtherThan(("food",)))))))
    assert condition.names() == {"knife", "food"}
    assert condition.contexts() == {("place", "home")}


@pytest.mark.parametrize(("one", "two"), [
    (All((Has("dog"), Has("knife"))), All((Has("knife"), Has("dog")))),
    (All((Has("dog"), All((Has("knife"), Has("beer"))))),
     All((Has("dog"), Has("knife"), Has("beer")))),
    (AnyOf((Has("dog"),)), Has("dog")),
    (AnyOf((Has("dog"), Has("dog"))), Has("dog")),
    (Not(Not(Is("place", "home"))), Is("place", "home")),
    (Not(Has("dog", at_least=2)), Has("dog", at_least=0, at_most=1)),
    (Not(Has("dog", at_least=0, at_most=1)), Has("dog", at_least=2)),
    (OtherThan(("food", "dog")), OtherThan(("dog", "food"))),
])
def test_spellings_of_one_condition_have_one_canonical_form(one, two):
    assert one.canonical() == two.canonical()
    assert one != two


def test_equal_canonical_forms_mean_the_same():
    rng, seen = random.Random(0), {}
    joined = 0
    for _ in range(2000):
        condition = random_condition(rng)
        twin = seen.setdefault(json.dumps(condition.canonical()), condition)
        if twin == condition:
            continue
        joined += 1
        for _ in range(10):
            picture = random_picture(rng)
            assert twin.holds(picture) == condition.holds(picture), (twin, condition)
    assert joined > 50


def test_distinct_scenes_find_every_difference_that_random_pictures_find():
    rng, told_apart = random.Random(1), 0
    for _ in range(150):
        one, two = random_condition(rng, 1), random_condition(rng, 1)
        differ = any(
            one.holds(p) != two.holds(p) for p in (random_picture(rng) for _ in range(60))
        )
        if differ:
            scenes = distinct_scenes([one, two], VOCABULARY.category_of)
            assert any(one.holds(s) != two.holds(s) for s in scenes), (one, two)
            told_apart += 1
    assert told_apart > 80
