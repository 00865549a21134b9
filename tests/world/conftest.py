"""One tiny build of the policy world, and a second artist, shared by the tests of this folder."""

import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen

from guardjax.world import builder, sprites
from guardjax.world.catalogue import THINGS

SIZES = {"train": 12, "dev": 4, "test": 4, "test_background": 4, "test_object": 8}


@pytest.fixture(scope="session")
def tiny_world(tmp_path_factory):
    """Directory of a small build; tests must not change it."""
    return builder.build(tmp_path_factory.mktemp("data"), SIZES, seed=3, progress=False)


def colour_font(path, characters):
    """Writes a colour font in which every character is a blue bar over a red one.

    The bars' height differs from character to character.
    """
    names = {ord(character): f"u{ord(character):04X}" for character in characters}
    layers = {name: (f"{name}.top", f"{name}.bottom") for name in names.values()}
    glyphs = {".notdef": _bars()} | {name: _bars((100, 900)) for name in layers}
    for number, (top, bottom) in enumerate(layers.values()):
        middle = 300 + 400 * number // len(layers)
        glyphs |= {top: _bars((middle, 900)), bottom: _bars((100, middle))}
    font = FontBuilder(1000)
    font.setupGlyphOrder(list(glyphs))
    font.setupCharacterMap(names)
    font.setupGlyf(glyphs)
    font.setupHorizontalMetrics(dict.fromkeys(glyphs, (1000, 0)))
    font.setupHorizontalHeader(ascent=1000, descent=0)
    font.setupOS2()
    font.setupPost()
    font.setupCPAL([[(0.0, 0.0, 1.0, 1.0), (1.0, 0.0, 0.0, 1.0)]])
    font.setupCOLR({name: [(top, 0), (bottom, 1)] for name, (top, bottom) in layers.items()})
    font.save(path)


def _bars(*heights):
    pen = TTGlyphPen(None)
    for low, high in heights:
        pen.moveTo((100, low))
        for point in ((100, high), (900, high), (900, low)):
            pen.lineTo(point)
        pen.closePath()
    return pen.glyph()


@pytest.fixture
def use_font(tmp_path, monkeypatch):
    """A function that makes a file the second artist's font; nothing drawn before is kept."""
    def forget():
        sprites.noto_font.cache_clear()
        sprites._load_sprites.cache_clear()

    def use(path):
        monkeypatch.setenv("GUARDJAX_NOTO_FONT", str(path))
        forget()

    monkeypatch.setenv("GUARDJAX_CACHE_DIR", str(tmp_path / "cache"))
    yield use
    monkeypatch.undo()
    forget()


# The font is optional. A machine without it tests the code with a font made here; a machine with
# it tests the font too.
@pytest.fixture(params=["made", *(["installed"] if sprites.noto_available() else [])])
def second_artist(request, tmp_path, use_font):
    """The second artist can be drawn."""
    if request.param == "installed":
        use_font(sprites.noto_font())
        return
    colour_font(tmp_path / "made.ttf",
                [thing.codepoint for thing in THINGS.values() if thing.codepoint])
    use_font(tmp_path / "made.ttf")
