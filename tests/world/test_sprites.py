import numpy as np
import pytest

from guardjax.world import catalogue, sprites
from guardjax.world.drawings import DRAWN, drawing

from .conftest import colour_font


@pytest.fixture
def fresh_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GUARDJAX_CACHE_DIR", str(tmp_path))
    sprites._load_sprites.cache_clear()
    yield tmp_path / "sprites"
    sprites._load_sprites.cache_clear()


def test_each_object_fills_its_square():
    pictures = sprites.load_sprites("openmoji", 96)
    assert list(pictures) == list(catalogue.THINGS)
    for name, picture in pictures.items():
        assert picture.shape == (96, 96, 4) and picture.dtype == np.uint8
        rows, columns = np.nonzero(picture[..., 3] > 60)
        assert max(np.ptp(rows), np.ptp(columns)) >= 88, name


def test_no_two_objects_look_the_same_at_scene_size():
    pictures = sprites.load_sprites("openmoji", 28)
    flat = {
        name: (picture[..., :3] * (picture[..., 3:] / 255) + 128 * (1 - picture[..., 3:] / 255))
        for name, picture in pictures.items()
    }
    names = list(flat)
    for index, one in enumerate(names):
        for other in names[index + 1:]:
            assert np.abs(flat[one] - flat[other]).mean() > 8, (one, other)


def test_second_start_reads_the_cache(fresh_cache, monkeypatch):
    first = sprites.load_sprites("openmoji", 16)
    assert [file.suffix for file in fresh_cache.iterdir()] == [".npz"]
    sprites._load_sprites.cache_clear()
    monkeypatch.setattr(sprites, "_draw", lambda *_: pytest.fail("drawn again"))
    second = sprites.load_sprites("openmoji", 16)
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_damaged_cache_is_made_again(fresh_cache):
    first = sprites.load_sprites("openmoji", 16)
    file = next(fresh_cache.iterdir())
    file.write_bytes(file.read_bytes()[:1000])
    sprites._load_sprites.cache_clear()
    second = sprites.load_sprites("openmoji", 16)
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_unwritable_cache_is_no_error(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("GUARDJAX_CACHE_DIR", str(tmp_path / "file"))
    sprites._load_sprites.cache_clear()
    assert sprites.load_sprites("openmoji", 16)
    sprites._load_sprites.cache_clear()


def test_missing_second_artist_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(sprites, "noto_font", lambda: None)
    sprites._load_sprites.cache_clear()
    assert not sprites.noto_available()
    with pytest.raises(sprites.ArtistUnavailable, match="fonts-noto-color-emoji"):
        sprites.load_sprites("noto", 16)


def test_wrong_font_variable_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("GUARDJAX_NOTO_FONT", str(tmp_path / "none.ttf"))
    sprites.noto_font.cache_clear()
    with pytest.raises(FileNotFoundError, match="none.ttf is no file"):
        sprites.noto_available()
    sprites.noto_font.cache_clear()


def test_second_artist_draws_everything_differently(second_artist):
    ours, theirs = (sprites.load_sprites(artist, 32) for artist in sprites.ARTISTS)
    assert list(ours) == list(theirs)
    for name in ours:
        assert not np.array_equal(ours[name], theirs[name]), name


def test_font_that_lacks_an_object_is_named(tmp_path, use_font):
    """An old font must not put empty pictures into the world."""
    font = tmp_path / "old.ttf"
    colour_font(font, ["\N{DOG FACE}"])
    use_font(font)
    with pytest.raises(sprites.ArtistUnavailable, match=r"old.ttf has no picture of .*newer Noto"):
        sprites.load_sprites("noto", 16)


def test_bad_requests():
    with pytest.raises(ValueError, match="'picasso' is unknown"):
        sprites.load_sprites("picasso")
    with pytest.raises(ValueError, match="size 4 is below 8"):
        sprites.load_sprites("openmoji", 4)
    with pytest.raises(KeyError, match="no drawing of 'dog'"):
        drawing("dog", "openmoji")


def test_drawn_objects_are_those_without_a_character():
    assert set(DRAWN) == {n for n, thing in catalogue.THINGS.items() if thing.codepoint is None}
