"""Captions of overlays and sheets can be read in the letters of their users."""

import pytest
from PIL import ImageFont

from pipeline.report import labels
from pipeline.report.letters import font_for

WORDS = ("Müller_00 Block 0", "Łódź", "Αθήνα", "Москва")


def boxes(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> list[str]:
    """The characters that a font draws as the box of one that it lacks."""
    lacking = bytes(font.getmask("\uffff"))
    return [character for character in text if not character.isspace() and bytes(font.getmask(character)) == lacking]


@pytest.mark.parametrize("text", WORDS)
def test_letters_of_many_languages_are_drawn(text: str) -> None:
    assert boxes(text, ImageFont.load_default(size=18))  # Pillow's own lacks them
    assert not boxes(text, font_for([text, "tissue"], 18))
    assert not boxes("tissue", font_for([text, "tissue"], 18))


def test_plain_english_has_pillows_own_font(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pictures of most users stay as they are, and load no matplotlib."""
    monkeypatch.delattr(labels, "font_file")
    for texts in ([], ["a slide", "pen"]):
        font = font_for(texts, 18)
        assert isinstance(font, ImageFont.FreeTypeFont)
        assert (font.getname(), font.size) == (("Aileron", "Regular"), 18)


def test_the_font_that_lacks_fewest_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a font of another script installed, as here one of Latin letters alone."""
    base, bold = labels.findfont("DejaVu Sans"), labels.findfont("STIXGeneral")
    monkeypatch.setattr(labels, "font_families", lambda: ("STIXGeneral", "DejaVu Sans"))
    assert labels.font_file("ü") == bold  # the first that has all
    assert labels.font_file("üش") == base
    assert labels.font_file("\U000f0000ش") == base
