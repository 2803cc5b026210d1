"""Shorten labels of figures, drop characters that no font has, and place labels where they cover nothing.

Labels come from files and may hold anything: mathematical signs, line breaks, scripts that the font lacks, 200 letters
without a space. Figures cut them in the middle; the page's tables have them whole.
"""

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from math import cos, pi, sin

from matplotlib.font_manager import FontProperties, findfont, fontManager, get_font
from matplotlib.textpath import text_to_path

BASE_FONT = "DejaVu Sans"
"""Comes with matplotlib, so that figures look the same everywhere."""
WIDE_FONTS = (
    "Noto Sans CJK JP",
    "Noto Sans CJK SC",
    "WenQuanYi Micro Hei",
    "WenQuanYi Zen Hei",
    "IPAexGothic",
    "Hiragino Sans",
    "PingFang SC",
    "Microsoft YaHei",
    "Yu Gothic",
    "Malgun Gothic",
    "Arial Unicode MS",
)
"""Taken, where they are installed, for what the base font lacks."""
COMMON_WIDTH = 0.6
"""Of a common letter, as a share of the font's size."""
NO_GLYPH = "\N{WHITE SQUARE}"
ELLIPSIS = "\N{HORIZONTAL ELLIPSIS}"

DISTANCES = (1.0, 8.0, 16.0, 26.0, 38.0, 52.0)
"""How far a label may be from its point, points beyond the marker's edge. Our choice."""
DIRECTIONS = tuple(2 * pi * step / 16 for step in (0, 8, 1, 15, 7, 9, 2, 14, 6, 10, 3, 13, 5, 11, 4, 12))
"""Angles that are tried, sides first."""


@cache
def font_families() -> tuple[str, ...]:
    """The base font and those installed here that have more scripts."""
    installed = {font.name for font in fontManager.ttflist}
    return (BASE_FONT, *(name for name in WIDE_FONTS if name in installed))


def font_file(characters: Iterable[str]) -> str:
    """File of the first of these fonts that has all the characters; if none has, of the one that lacks fewest."""
    codes = {ord(character) for character in characters}
    files = [findfont(name) for name in font_families()]
    return min(files, key=lambda file: len(codes - get_font(file).get_charmap().keys()))


@cache
def _glyphs() -> frozenset[int]:
    """Code points that some font of ours can draw."""
    return frozenset(code for name in font_families() for code in get_font(findfont(name)).get_charmap())


def drawable(text: str) -> str:
    """`text` on one line, with a square for what cannot be drawn."""
    kept = (c for c in text if c.isspace() or unicodedata.category(c) not in ("Cc", "Cf"))
    line = " ".join("".join(kept).split())
    return "".join(c if ord(c) in _glyphs() else NO_GLYPH for c in line)


@cache
def _width(character: str) -> float:
    """How wide a character is, as a share of a common letter's width."""
    if ord(character) not in get_font(findfont(BASE_FONT)).get_charmap():
        return 1 / COMMON_WIDTH
    width, _, _ = text_to_path.get_text_width_height_descent(
        character, FontProperties(family=BASE_FONT, size=100), False
    )
    return float(width) / 100 / COMMON_WIDTH


def shorten(text: str, longest: int) -> str:
    """`text` as it can be drawn, with its middle cut out if it is wider than `longest` common letters."""
    text = drawable(text)
    if sum(map(_width, text)) <= longest:
        return text
    head = tail = 0
    room = longest - _width(ELLIPSIS)
    while True:
        from_head = head <= tail
        room -= _width(text[head] if from_head else text[-1 - tail])
        if room < 0:
            return text[:head] + ELLIPSIS + text[len(text) - tail :]
        head, tail = head + from_head, tail + (not from_head)


def short_labels(labels: Iterable[str], longest: int) -> dict[str, str]:
    """Each label as it is drawn; those that would look the same get a number."""
    short: dict[str, str] = {}
    taken: set[str] = set()
    for label in labels:
        text = shorten(label, longest) or NO_GLYPH
        name, number = text, 2
        while name in taken:
            name, number = f"{text} ({number})", number + 1
        taken.add(name)
        short[label] = name
    return short


@dataclass(frozen=True)
class Box:
    """A rectangle in points, y upwards."""

    left: float
    bottom: float
    right: float
    top: float

    def overlap(self, other: "Box") -> float:
        """Area that both cover."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.top, other.top) - max(self.bottom, other.bottom)
        return max(width, 0.0) * max(height, 0.0)

    @property
    def area(self) -> float:
        return (self.right - self.left) * (self.top - self.bottom)


def place_labels(
    points: Sequence[tuple[float, float, float]],
    sizes: Sequence[tuple[float, float]],
    obstacles: Sequence[Box],
    frame: Box,
) -> list[tuple[Box, bool]]:
    """Where labels go so that they cover little: for each its box, and whether it is so far that it needs a line.

    Each label in turn takes the place that covers least of what is there already; of equal ones the nearest.

    Args:
        points: x, y and radius of the markers, points.
        sizes: width and height of the labels.
        obstacles: what should not be covered, markers excepted: they are.
        frame: the labels should stay within it.
    """
    taken = [Box(x - r, y - r, x + r, y + r) for x, y, r in points] + list(obstacles)
    placed: list[tuple[Box, bool]] = []
    for (x, y, radius), (width, height) in zip(points, sizes, strict=True):
        best, best_cost = None, float("inf")
        for distance in DISTANCES:
            for angle in DIRECTIONS:
                box = _box_towards(x, y, radius + distance, angle, width, height)
                outside = box.area - box.overlap(frame)
                cost = sum(box.overlap(other) for other in taken) + 3 * outside + 0.2 * distance
                if cost < best_cost - 1e-6:
                    best, best_cost = (box, distance > DISTANCES[1]), cost
        assert best is not None
        placed.append(best)
        taken.append(best[0])
    return placed


def _box_towards(x: float, y: float, distance: float, angle: float, width: float, height: float) -> Box:
    """A box beside a point, its nearest side or corner at `distance` in that direction."""
    across, up = cos(angle), sin(angle)
    centre_x = x + across * distance + (across if abs(across) < 0.7 else (1 if across > 0 else -1)) * width / 2
    centre_y = y + up * (distance + height / 2)
    return Box(centre_x - width / 2, centre_y - height / 2, centre_x + width / 2, centre_y + height / 2)
