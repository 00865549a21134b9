import pytest

from guardjax.world import builder, catalogue
from guardjax.world.card import data_card
from guardjax.world.photographs import PHOTOGRAPHS
from guardjax.world.sheet import contact_sheet

from .conftest import SIZES


def test_card_counts_and_credits(tiny_world):
    card = (tiny_world / "CARD.md").read_text()
    assert card == data_card(tiny_world)
    assert f"| train | {SIZES['train']} | {2 * SIZES['train']} | {SIZES['train']} |" in card
    for words in ("CC BY-SA 4.0", "Apache-2.0", "SIL OFL 1.1", "CC BY 2.0"):
        assert words in card
    for photograph in PHOTOGRAPHS.values():
        assert photograph.file in card and photograph.credit in card
    for category in catalogue.CATEGORIES:
        assert f"| {category} |" in card


def test_sheet_shows_pairs_side_by_side(tiny_world):
    source = builder.load(tiny_world, "train")
    sheet = contact_sheet([source[index] for index in range(6)], columns=4, scale=3)
    assert sheet.mode == "RGB"
    assert sheet.width >= 4 * 192 and sheet.height >= 2 * 192
    assert any(colour == (255, 0, 220) for _, colour in sheet.getcolors(maxcolors=2**20))


def test_sheet_refuses_nonsense(tiny_world):
    with pytest.raises(ValueError, match="no records to show"):
        contact_sheet([])
    with pytest.raises(ValueError, match="columns=0"):
        contact_sheet([builder.load(tiny_world, "train")[0]], columns=0)
