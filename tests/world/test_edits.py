import collections

import numpy as np
import pytest

from guardjax.world import catalogue
from guardjax.world.edits import KINDS, edit_mask, sample_pair
from guardjax.world.scene import SceneSpec, render, sample_scene


@pytest.fixture(scope="module")
def pairs():
    return [sample_pair(seed) for seed in range(400)]


def harm(scene):
    return any(map(catalogue.is_harmful, scene.names))


def test_same_seed_same_pair():
    one, two = sample_pair(11), sample_pair(11)
    assert one.before == two.before and one.after == two.after and one.kind == two.kind


def test_pictures_are_equal_outside_the_mask_and_differ_inside(pairs):
    for pair in pairs[:200]:
        before, after = render(pair.before), render(pair.after)
        assert np.array_equal(before[~pair.mask], after[~pair.mask])
        assert (before != after).any()
        placed = pair.before.objects[pair.index]
        box = np.zeros_like(pair.mask)
        box[placed.y:placed.y + placed.size, placed.x:placed.x + placed.size] = True
        assert not (pair.mask & ~box).any()


def test_kinds_do_what_they_say(pairs):
    for pair in pairs:
        old, new = pair.before.names[pair.index], pair.after.names[pair.index]
        assert old != new
        rest = [names[:pair.index] + names[pair.index + 1:]
                for names in (pair.before.names, pair.after.names)]
        assert rest[0] == rest[1]
        expected = {
            "remove_harm": (True, False), "add_harm": (False, True),
            "neutral_safe": (False, False), "neutral_harm": (True, True),
        }[pair.kind]
        assert (harm(pair.before), harm(pair.after)) == expected
        if pair.kind == "neutral_harm":
            assert catalogue.CATEGORY_OF[old] == catalogue.CATEGORY_OF[new]


def test_kinds_are_equally_frequent_and_no_member_tells_the_label(pairs):
    assert set(collections.Counter(pair.kind for pair in pairs).values()) == {100}
    assert np.mean([harm(pair.before) for pair in pairs]) == 0.5
    assert np.mean([harm(pair.after) for pair in pairs]) == 0.5
    orders = {tuple(pair.kind for pair in pairs[i:i + 4]) for i in range(0, 400, 4)}
    assert len(orders) > 10 and all(sorted(order) == sorted(KINDS) for order in orders)


def test_harm_is_often_replaced_by_a_look_alike(pairs):
    removed = [pair for pair in pairs if pair.kind == "remove_harm"]
    alike = [
        pair.after.names[pair.index] in catalogue.LOOK_ALIKES[pair.before.names[pair.index]]
        for pair in removed
    ]
    assert np.mean(alike) > 0.4


def test_both_members_show_a_held_out_object_in_their_split():
    hidden = set(catalogue.HELD_OUT_OBJECTS)
    for seed in range(200):
        pair = sample_pair(seed, SceneSpec("test_object"))
        for scene in (pair.before, pair.after):
            assert hidden & set(scene.names)
        assert {pair.before.names[pair.index], pair.after.names[pair.index]} & hidden


def test_mask_of_unrelated_scenes_is_refused():
    with pytest.raises(ValueError, match="differ in more than object names"):
        edit_mask(sample_scene(0), sample_scene(1))
