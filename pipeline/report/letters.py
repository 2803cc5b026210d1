"""Fonts of what Pillow draws: overlays and sheets, whose captions hold names of slides, classes and models."""

from collections.abc import Iterable

from PIL import ImageFont


def font_for(texts: Iterable[str], size_px: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """A font that has the letters of all these texts: Pillow's own, which has English alone; else one of the figures'.

    Letters that none of them has are drawn as boxes.
    """
    letters = {letter for text in texts for letter in text if not letter.isascii()}
    if not letters:
        return ImageFont.load_default(size=size_px)
    from pipeline.report.labels import font_file  # why: loads matplotlib, which most pictures do without

    return ImageFont.truetype(font_file(letters), size_px)
