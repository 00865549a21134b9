import dataclasses

import numpy as np
import pytest

from guardjax.world import catalogue
from guardjax.world.photographs import PHOTOGRAPHS
from guardjax.world.scene import SceneSpec, cover, render, sample_scene, silhouettes

KNOWN = (("football", "banana", "cake", "key"), "city", "bright")
SPLITS = [split for split in catalogue.SPLITS if split != "test_artist"]


@pytest.fixture(scope="module")
def scenes():
    return [sample_scene(seed) for seed in range(400)]


def test_same_seed_same_scene_and_picture():
    for seed in (0, 7, 2**40):
        assert sample_scene(seed) == sample_scene(seed)
        assert np.array_equal(render(sample_scene(seed)), render(sample_scene(seed)))
    assert sample_scene(1) != sample_scene(2)
    assert sample_scene(1) != dataclasses.replace(sample_scene(1, SceneSpec("dev")), split="train")


def test_known_scene_has_not_changed():
    """Trained sight depends on the world: a change here is a new world, made on purpose."""
    scene = sample_scene(5)
    assert (scene.names, scene.place, scene.light) == KNOWN


def test_picture_shape_and_other_sizes():
    assert render(sample_scene(0)).shape == (64, 64, 3)
    spec = SceneSpec(image_size=96, sprite_sizes=(36, 44))
    picture = render(sample_scene(0, spec))
    assert picture.shape == (96, 96, 3) and picture.dtype == np.uint8


def test_objects_lie_apart_in_reading_order(scenes):
    for scene in scenes:
        assert silhouettes(scene).sum(0).max() <= 1
        cells = [(placed.y // 32, placed.x // 32) for placed in scene.objects]
        assert cells == sorted(set(cells))


def test_half_of_the_scenes_hold_harm_and_everything_occurs(scenes):
    harm = np.mean([any(map(catalogue.is_harmful, scene.names)) for scene in scenes])
    assert 0.42 < harm < 0.58
    assert {len(scene.objects) for scene in scenes} == {1, 2, 3, 4}
    assert {scene.place for scene in scenes} == set(catalogue.CONTEXTS["place"])
    assert {scene.light for scene in scenes} == set(catalogue.CONTEXTS["light"])
    shown = {name for scene in scenes for name in scene.names}
    assert shown == set(catalogue.objects_of_split("train"))


@pytest.mark.parametrize("split", SPLITS)
def test_splits_use_their_own_photographs_and_objects(split):
    hidden = set(catalogue.HELD_OUT_OBJECTS)
    for seed in range(150):
        scene = sample_scene(seed, SceneSpec(split))
        assert PHOTOGRAPHS[scene.photograph].held_out == (split == "test_background")
        assert PHOTOGRAPHS[scene.photograph].place == scene.place
        assert bool(hidden & set(scene.names)) == (split == "test_object")


def test_dark_scenes_are_darker(scenes):
    light = {"bright": [], "dark": []}
    for scene in scenes[:150]:
        light[scene.light].append(render(scene).mean())
    assert np.median(light["dark"]) < 0.6 * np.median(light["bright"])


@pytest.mark.parametrize("unit", [8, 16, 32])
def test_cover_names_exactly_the_objects(scenes, unit):
    for scene in scenes[:200]:
        names = cover(scene, unit)
        assert names.shape == (64 // unit, 64 // unit)
        assert set(names.flat) - {""} == set(scene.names)


def test_cover_is_where_the_object_is(scenes):
    for scene in scenes[:50]:
        quarters = cover(scene, 32)
        for placed in scene.objects:
            assert quarters[placed.y // 32, placed.x // 32] == placed.name
    with pytest.raises(ValueError, match="unit 10 does not divide the image size 64"):
        cover(scenes[0], 10)


def test_attributes_count_objects_and_categories(scenes):
    for scene in scenes[:50]:
        attributes = scene.attributes()
        for name in scene.names:
            assert attributes.counts[name] == scene.names.count(name)
        categories = [catalogue.CATEGORY_OF[name] for name in scene.names]
        for category in categories:
            assert attributes.counts[category] == categories.count(category)
        assert attributes.context == {"place": scene.place, "light": scene.light}


@pytest.mark.parametrize("change, message", [
    ({"split": "validation"}, "'validation' does not exist"),
    ({"artist": "picasso"}, "'picasso' is unknown"),
    ({"sprite_sizes": (24, 40)}, "must be 8 to 32 pixels"),
    ({"sprite_sizes": ()}, "do not fit"),
    ({"count_weights": (0, 0)}, "not all zero"),
    ({"harm_share": 1.5}, "harm_share is 1.5"),
])
def test_bad_specs_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        SceneSpec(**change)


def test_negative_seed_is_refused():
    with pytest.raises(ValueError, match="seed -1 is negative"):
        sample_scene(-1)
