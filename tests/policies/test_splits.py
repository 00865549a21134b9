"""Splits: frozen, disjoint by content, and truly without what is held out."""

import hashlib
import time

import pytest

from guardjax.policies import (
    HELD_OUT_CATEGORIES,
    HELD_OUT_SHAPES,
    HELD_OUT_STYLES,
    SPLITS,
    TRAIN_STYLES,
    AnyOf,
    Has,
    OtherThan,
    Policy,
    Rule,
    Vocabulary,
    load_ladder,
    make_splits,
    policy_split,
)
from tests.policies.vocab import VOCABULARY

MADE = make_splits(VOCABULARY)
TRAIN = [MADE.train_policy(index) for index in range(1500)]
HELD_OUT_NAMES = set(HELD_OUT_CATEGORIES) | {
    name for category in HELD_OUT_CATEGORIES for name in VOCABULARY.categories[category]
}


def names(policy):
    return {name for rule in policy.rules for condition in (rule.when, rule.unless) if condition
            for name in condition.names()}


def shows_held_out_shape(policy):
    return any(rule.unless is not None or isinstance(rule.when, OtherThan)
               for rule in policy.rules)


def test_sizes_and_names():
    sizes = {split: len(MADE.policies(split)) for split in SPLITS}
    assert sizes["dev"] == 50 and sizes["test"] == sizes["test_wordings"] == 60
    assert min(sizes.values()) >= 40
    with pytest.raises(ValueError, match="'tset'"):
        MADE.policies("tset")
    with pytest.raises(ValueError, match="'tset'"):
        MADE.styles("tset")


def test_no_content_crosses():
    train = {policy.content_hash for policy in TRAIN}
    groups = [train, {p.content_hash for p in load_ladder().values()}]
    groups += [{p.content_hash for p in MADE.policies(s)} for s in SPLITS if s != "test_wordings"]
    assert len(set().union(*groups)) == sum(map(len, groups))
    for split in ("dev", "test", "test_categories", "test_shapes"):
        assert len({p.content_hash for p in MADE.policies(split)}) == len(MADE.policies(split))


def test_the_split_depends_on_content_alone():
    for policy in (*TRAIN[:50], *MADE.dev, *MADE.test):
        shuffled = Policy("other", "9", "Other", tuple(
            Rule(f"X{i}", rule.when, rule.unless, "high", ("words",))
            for i, rule in enumerate(reversed(policy.rules))
        ))
        assert policy_split(shuffled) == policy_split(policy)
    assert {policy_split(p) for p in TRAIN} == {"train"}
    assert {policy_split(p) for p in MADE.dev} == {"dev"}
    assert {policy_split(p) for s in SPLITS if s != "dev" for p in MADE.policies(s)} == {"test"}


def test_held_out_categories_are_never_named_elsewhere():
    for policy in (*TRAIN, *MADE.dev, *MADE.test, *MADE.test_shapes):
        assert not names(policy) & HELD_OUT_NAMES
    for index in range(100):
        assert not names(MADE.train_policy(index, focus=sorted(HELD_OUT_NAMES))) & HELD_OUT_NAMES
    for policy in MADE.test_categories:
        for rule in policy.rules:
            assert rule.when.names() & HELD_OUT_NAMES


def test_held_out_shapes_are_only_in_their_split():
    assert set(HELD_OUT_SHAPES) == {"exception", "allow_list"}
    for policy in (*TRAIN, *MADE.dev, *MADE.test, *MADE.test_categories):
        assert not shows_held_out_shape(policy)
    assert all(shows_held_out_shape(policy) for policy in MADE.test_shapes)
    kinds = {type(rule.when) for policy in MADE.test_shapes for rule in policy.rules}
    assert {OtherThan, Has} <= kinds


def test_held_out_words_are_only_in_their_split():
    assert MADE.styles("test_wordings") == HELD_OUT_STYLES
    assert {MADE.styles(s) for s in ("train", *SPLITS) if s != "test_wordings"} == {TRAIN_STYLES}
    frames = [style.ban.replace("{x}", "").split("  ")[0].strip() for style in HELD_OUT_STYLES]
    for index, policy in enumerate(MADE.test_wordings):
        assert policy.render(MADE.wording("test_wordings", index)) != policy.render(
            MADE.wording("test", index))
    for index, policy in enumerate((*TRAIN, *MADE.test)):
        text = policy.render(MADE.wording("train", index))
        assert not any(frame.split()[0] in text.split() for frame in frames), text


def test_training_is_varied():
    assert len({policy.content_hash for policy in TRAIN}) > 1000
    seen = set().union(*map(names, TRAIN))
    every = set(VOCABULARY.categories) | set(VOCABULARY.category_of)
    assert seen == every - HELD_OUT_NAMES
    assert any(isinstance(rule.when, AnyOf) for policy in TRAIN for rule in policy.rules)


def test_frozen():
    """The very policies, so that a change of the generator cannot move test policies unseen."""
    digest = hashlib.sha256()
    for split in SPLITS:
        for index, policy in enumerate(MADE.policies(split)):
            digest.update(policy.hash.encode())
            digest.update(policy.render(MADE.wording(split, index)).encode())
    for policy in TRAIN[:100]:
        digest.update(policy.hash.encode())
    assert digest.hexdigest()[:16] == "fcefc58fe2966d16"


def test_made_again_they_are_the_same_and_another_seed_differs():
    assert make_splits(VOCABULARY) == MADE
    other = make_splits(VOCABULARY, seed=1)
    assert other.test != MADE.test and other.train_policy(0) != MADE.train_policy(0)


def test_fast():
    start = time.process_time()
    make_splits(VOCABULARY, seed=2)
    for index in range(200):
        MADE.train_policy(index)
    assert time.process_time() - start < 2


def test_refusals():
    tiny = Vocabulary(
        {"gambling": ("die",), "music": ("drum",), "weapons": ("knife",)}, ("weapons",))
    with pytest.raises(ValueError, match=r"\['music'\]"):
        make_splits(VOCABULARY.without(("music",)))
    with pytest.raises(ValueError, match="of 100000 dev policies"):
        make_splits(tiny, dev=100_000)
