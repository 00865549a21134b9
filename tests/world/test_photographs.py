from guardjax.world import catalogue
from guardjax.world.photographs import BLURS, PHOTOGRAPHS, ZOOMS, backdrop, photographs_of_split


def test_every_place_has_a_training_photograph():
    assert set(photographs_of_split("train")) == set(catalogue.CONTEXTS["place"])
    assert photographs_of_split("train") == photographs_of_split("test")


def test_held_out_photographs_are_only_in_their_split():
    seen = {name for names in photographs_of_split("train").values() for name in names}
    unseen = {name for names in photographs_of_split("test_background").values() for name in names}
    assert unseen and not seen & unseen and seen | unseen == set(PHOTOGRAPHS)


def test_backdrops_are_large_enough_and_grey_ones_tinted():
    for name, photograph in PHOTOGRAPHS.items():
        for zoom in range(len(ZOOMS)):
            picture = backdrop(name, 64, zoom, len(BLURS) - 1)
            assert min(picture.shape[:2]) >= 64 and picture.shape[2] == 3
        if photograph.tint:
            assert (picture[..., 0] != picture[..., 2]).mean() > 0.5, name


def test_every_photograph_has_credit_and_licence():
    for photograph in PHOTOGRAPHS.values():
        assert photograph.licence and photograph.credit
        assert photograph.place in catalogue.CONTEXTS["place"]
