"""Generated policies: every shape, harmless bans too, and nothing that cannot be broken."""

import collections
import random

import pytest

from guardjax.policies import Shape, Vocabulary, generate_policy, lint_policy
from tests.policies.vocab import VOCABULARY, random_picture


def test_same_seed_same_policy():
    first = [generate_policy(seed, VOCABULARY) for seed in range(50)]
    assert first == [generate_policy(seed, VOCABULARY) for seed in range(50)]
    assert len({policy.content_hash for policy in first}) > 45


def test_one_to_three_short_rules_with_ids_in_order():
    numbers = collections.Counter()
    for seed in range(400):
        policy = generate_policy(seed, VOCABULARY)
        assert policy.rule_ids == tuple(f"R{i + 1}" for i in range(len(policy.rules)))
        assert len(policy.render(seed).split()) <= 60
        numbers[len(policy.rules)] += 1
    assert set(numbers) == {1, 2, 3} and min(numbers.values()) > 40


@pytest.mark.parametrize("shape", Shape)
def test_each_shape_is_what_it_says(shape):
    checks = {
        "category": lambda w, u: w["name"] in VOCABULARY.categories,
        "object": lambda w, u: all(n in VOCABULARY.category_of for n in w["names"]),
        "any": lambda w, u: w["kind"] == "AnyOf" and len(w["names"]) >= 2,
        "cooccurrence": lambda w, u: w["kind"] == "All" and len(w["names"]) == 2,
        "count": lambda w, u: w["condition"].at_least in (2, 3),
        "context": lambda w, u: len(w["condition"].contexts()) == 1 and len(w["names"]) == 1,
        "absence": lambda w, u: "Not" in repr(w["condition"]) and len(w["names"]) == 2,
        "exception": lambda w, u: u is not None and w["name"] in VOCABULARY.categories,
        "allow_list": lambda w, u: w["kind"] == "OtherThan",
    }
    for seed in range(60):
        for rule in generate_policy(seed, VOCABULARY, (shape,)).rules:
            when = {"condition": rule.when, "kind": type(rule.when).__name__,
                    "names": rule.when.names(), "name": getattr(rule.when, "name", None)}
            assert checks[shape](when, rule.unless), rule
            assert (rule.unless is not None) == (shape == "exception")


def test_harmless_things_are_banned_as_often_as_harmful_ones():
    harmful = set(VOCABULARY.harmful)
    category_of = VOCABULARY.category_of
    share = [
        bool({category_of.get(name, name) for name in rule.when.names()} & harmful)
        for seed in range(600)
        for rule in generate_policy(seed, VOCABULARY, ("category", "object")).rules
    ]
    assert 0.42 < sum(share) / len(share) < 0.58


def test_no_rule_is_impossible_or_always_broken():
    for seed in range(150):
        policy = generate_policy(seed, VOCABULARY)
        errors = [f for f in lint_policy(policy, VOCABULARY.category_of) if f.level == "error"
                  and "contradicts" not in f.message]
        assert errors == [], policy.render()


def test_focus_makes_policies_speak_about_the_picture():
    focus = ["knife", "animals", "unicorn"]  # an unknown name is passed over
    def speaks(policy):
        names = frozenset().union(*(rule.when.names() for rule in policy.rules))
        return bool(names & {"knife", "weapons", "animals", "dog", "fox", "frog"})
    plain = sum(speaks(generate_policy(seed, VOCABULARY)) for seed in range(200))
    focused = sum(speaks(generate_policy(seed, VOCABULARY, focus=focus)) for seed in range(200))
    assert focused > plain + 50


def test_subjects_bind_every_main_name():
    for seed in range(100):
        policy = generate_policy(seed, VOCABULARY, subjects=("music",), focus=["knife"])
        for rule in policy.rules:
            assert rule.when.names() & {"music", "drum", "violin"}, policy.render()


def test_lead_shapes_are_always_there_and_at_any_place():
    places = set()
    for seed in range(100):
        policy = generate_policy(
            seed, VOCABULARY, ("category",), lead_shapes=("exception",))
        places |= {i for i, rule in enumerate(policy.rules) if rule.unless is not None}
        assert sum(rule.unless is not None for rule in policy.rules) == 1
    assert places == {0, 1, 2}


def test_policies_split_random_pictures():
    rng = random.Random(0)
    pictures = [random_picture(rng) for _ in range(300)]
    policies = [generate_policy(seed, VOCABULARY) for seed in range(60)]
    share = [
        sum(policy.judge(p).verdict == "unsafe" for p in pictures) / 300 for policy in policies
    ]
    assert sum(0.02 < s < 0.98 for s in share) > 50
    assert 0.15 < sum(share) / len(share) < 0.6


def test_small_vocabularies():
    tiny = Vocabulary({"weapons": ("knife",)}, ("weapons",))
    for seed in range(30):
        generate_policy(seed, tiny)
    with pytest.raises(ValueError, match="'context'.*0 contexts"):
        generate_policy(0, tiny, ("context",))


@pytest.mark.parametrize(("make", "message"), [
    (lambda: Vocabulary({}, ()), "empty"),
    (lambda: Vocabulary({"weapons": ()}, ()), r"\['weapons'\] are empty"),
    (lambda: Vocabulary({"a": ("x",), "b": ("x",)}, ()), r"\['x'\] appear twice"),
    (lambda: Vocabulary({"a": ("x",)}, ("b",)), r"\['b'\]"),
    (lambda: Vocabulary({"a": ("Two Words",)}, ()), "'Two Words'"),
    (lambda: generate_policy(0, VOCABULARY, ("sonnet",)), "'sonnet'"),
    (lambda: generate_policy(0, VOCABULARY, subjects=("poems",)), r"\['poems'\]"),
])
def test_refusals_name_the_value(make, message):
    with pytest.raises(ValueError, match=message):
        make()
