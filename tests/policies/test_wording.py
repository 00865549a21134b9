"""Words: one text for one meaning, held-out frames apart from training frames."""

import itertools
import random

import pytest

from guardjax.policies import (
    HELD_OUT_STYLES,
    TRAIN_STYLES,
    All,
    AnyOf,
    Has,
    Is,
    Not,
    OtherThan,
    Wording,
    verbalise,
)
from tests.policies.test_condition import random_condition
from tests.policies.vocab import random_picture

PLAIN = TRAIN_STYLES[0]
STYLES = {style.name: style for style in (*TRAIN_STYLES, *HELD_OUT_STYLES)}


@pytest.mark.parametrize(("when", "unless", "text"), [
    (Has("weapons"), None, "no weapons"),
    (AnyOf((Has("knife"), Has("beer"))), None, "no knife or beer"),
    (AnyOf((Has("knife"), Has("beer"), Has("dog"))), None, "no knife, beer or dog"),
    (All((Has("knife"), Has("dog"))), None, "no knife with dog"),
    (All((Is("place", "garden"), Has("knife"))), None, "no knife in garden"),
    (All((Has("knife"), Is("light", "dark"), Has("dog"))), None, "no knife with dog in the dark"),
    (All((Has("knife"), Not(Has("dog")))), None, "no knife without dog"),
    (All((Has("knife"), Not(Is("place", "home")))), None, "no knife not at home"),
    (Has("knife", at_least=2), None, "no more than one knife"),
    (OtherThan(("dog", "cup", "food")), None, "only dog, cup or food allowed"),
    (Has("weapons"), Has("dog"), "no weapons, except with dog"),
    (Has("weapons"), Is("place", "table"), "no weapons, except on table"),
    (Has("weapons"), All((Has("dog"), Is("light", "dark"))),
     "no weapons, except with dog in the dark"),
    (Not(Has("dog")), None, "no picture without dog"),
    (Is("place", "space"), None, "no picture in space"),
])
def test_plain_words(when, unless, text):
    assert verbalise(when, unless, PLAIN) == text


@pytest.mark.parametrize(("style", "text"), [
    ("ban", "ban two or more knife"),
    ("appear", "more than one knife must not appear"),
    ("breaks", "anything showing more than one knife breaks the rules"),
    ("keep", "keep two or more knife out"),
])
def test_styles_differ_in_frame(style, text):
    assert verbalise(Has("knife", at_least=2), None, STYLES[style]) == text


def test_enough_styles_with_frames_of_their_own():
    assert len(TRAIN_STYLES) >= 5 and len(HELD_OUT_STYLES) >= 3
    assert len(STYLES) == len(TRAIN_STYLES) + len(HELD_OUT_STYLES)
    frames = [frame for style in STYLES.values() for frame in (style.ban, style.only)]
    assert len(set(frames)) == len(frames)
    assert all(frame.count("{x}") == 1 for frame in frames)


def test_held_out_frames_share_no_word_with_training_frames():
    def words(styles):
        return {w for s in styles for f in (s.ban, s.only) for w in f.split()} - {"{x}"}

    assert not words(TRAIN_STYLES) & words(HELD_OUT_STYLES) - {"anything"}
    # Operators cannot be guessed, so held-out styles use those that training shows.
    for field in ("unless", "joined", "lacking", "many"):
        known = {getattr(style, field) for style in TRAIN_STYLES}
        assert {getattr(style, field) for style in HELD_OUT_STYLES} <= known


@pytest.mark.parametrize("style", STYLES.values(), ids=STYLES)
def test_one_text_never_has_two_meanings(style):
    """Random trees, nested as no generated policy is: equal words must be equal in meaning."""
    rng = random.Random(0)
    pictures = [random_picture(rng) for _ in range(150)]
    meaning, texts = {}, 0
    for _ in range(1500):
        when, unless = random_condition(rng), None
        if rng.random() < 0.3:
            unless = random_condition(rng, 1)
        text = verbalise(when, unless, style)
        truth = [when.holds(p) and not (unless and unless.holds(p)) for p in pictures]
        first = meaning.setdefault(text, (truth, when, unless))
        assert first[0] == truth, (text, first[1:], (when, unless))
        texts += 1
    assert len(meaning) > 600


def test_words_are_lower_case_ascii_on_one_line():
    rng = random.Random(2)
    for style, _ in itertools.product(STYLES.values(), range(50)):
        text = verbalise(random_condition(rng), None, style)
        assert text == text.lower() and text.isascii() and "\n" not in text and "  " not in text


def test_a_wording_needs_styles():
    with pytest.raises(ValueError, match="no styles"):
        Wording(0, ())
