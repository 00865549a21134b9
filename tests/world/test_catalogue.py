import re

import pytest

from guardjax.world import catalogue


def test_names_are_single_lowercase_words_and_unlike_categories():
    names = set(catalogue.THINGS)
    contexts = {value for values in catalogue.CONTEXTS.values() for value in values}
    for word in names | set(catalogue.CATEGORIES) | contexts:
        assert re.fullmatch("[a-z]+", word)
    assert not names & set(catalogue.CATEGORIES)
    assert not names & contexts


def test_enough_objects():
    assert len(catalogue.HARMFUL) >= 8
    assert all(len(catalogue.CATEGORIES[category]) >= 3 for category in catalogue.HARMFUL)
    assert sum(not catalogue.is_harmful(name) for name in catalogue.THINGS) >= 60


def test_every_harmful_object_has_harmless_look_alikes():
    harmful = {name for name in catalogue.THINGS if catalogue.is_harmful(name)}
    assert set(catalogue.LOOK_ALIKES) == harmful
    for names in catalogue.LOOK_ALIKES.values():
        assert names and not any(catalogue.is_harmful(name) for name in names)


def test_held_out_objects_are_only_in_their_split():
    hidden = set(catalogue.HELD_OUT_OBJECTS)
    assert any(catalogue.is_harmful(name) for name in hidden)
    for split in catalogue.SPLITS:
        shown = set(catalogue.objects_of_split(split))
        assert shown >= hidden if split == "test_object" else not shown & hidden
    with pytest.raises(ValueError, match="'holdout' does not exist"):
        catalogue.objects_of_split("holdout")


def test_every_category_keeps_two_objects_in_training():
    shown = catalogue.objects_of_split("train")
    for category, names in catalogue.CATEGORIES.items():
        assert sum(name in shown for name in names) >= 2, category


def test_vocabulary_hides_held_out_objects_unless_asked():
    words = catalogue.vocabulary()
    named = {name for names in words.categories.values() for name in names}
    assert not named & set(catalogue.HELD_OUT_OBJECTS)
    assert tuple(words.harmful) == catalogue.HARMFUL
    everything = catalogue.vocabulary(with_held_out=True)
    assert sum(map(len, everything.categories.values())) == len(catalogue.THINGS)
