"""Labels of figures: short, drawable, different, and placed where they cover nothing."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.report import labels as figure_text
from pipeline.report.labels import ELLIPSIS, NO_GLYPH, Box, drawable, place_labels, short_labels, shorten


def test_short_labels_stay_different() -> None:
    long = ["x" * 50 + str(i) + "y" * 50 for i in range(3)]
    short = short_labels(long, 12)
    assert len(set(short.values())) == 3
    assert all(len(name) <= 16 for name in short.values())
    assert all(name[0] == "x" and ("y" in name) and ELLIPSIS in name for name in short.values())


@given(st.text(min_size=1), st.integers(3, 40))
def test_a_shortened_text_fits_and_keeps_both_ends(text: str, longest: int) -> None:
    whole, short = drawable(text), shorten(text, longest)
    if short != whole:
        head, tail = short.split(ELLIPSIS)[0], short.split(ELLIPSIS)[-1]
        assert whole.startswith(head)
        assert whole.endswith(tail)
        assert sum(map(figure_text._width, short)) <= longest < sum(map(figure_text._width, whole))


@given(st.text())
def test_what_is_drawable_is_one_line_and_stays_as_it_is(text: str) -> None:
    once = drawable(text)
    assert drawable(once) == once
    assert "\n" not in once


def test_what_no_font_has_is_a_square() -> None:
    assert drawable("a\U0001f9a0 b") == f"a{NO_GLYPH} b"


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1), st.integers(1, 7))
def test_labels_cover_neither_each_other_nor_points_where_there_is_room(seed: int, count: int) -> None:
    generator = np.random.default_rng(seed)
    points = [(float(x), float(y), 4.0) for x, y in generator.uniform(60, 340, (count, 2))]
    frame = Box(0, 0, 400, 400)
    placed = [box for box, _ in place_labels(points, [(40.0, 9.0)] * count, [], frame)]
    dots = [Box(x - r, y - r, x + r, y + r) for x, y, r in points]
    for i, box in enumerate(placed):
        assert box.overlap(frame) == pytest.approx(box.area)
        assert not any(box.overlap(other) > 0 for other in placed[:i])
        own = box.overlap(dots[i])
        assert own == 0


def test_a_label_leaves_an_obstacle_free_and_needs_a_line_when_it_is_far() -> None:
    wall = [Box(0, 80, 100, 120), Box(0, 20, 49, 80), Box(51, 20, 100, 80), Box(0, 0, 100, 20)]
    ((near, far),) = place_labels([(50.0, 50.0, 3.0)], [(20.0, 8.0)], [], Box(0, 0, 100, 100))
    assert not far
    assert near.left == pytest.approx(54)
    walls = [*wall[:1], Box(30, 30, 49, 70), Box(51, 30, 70, 70)]
    ((box, far),) = place_labels([(50.0, 50.0, 3.0)], [(20.0, 8.0)], walls, Box(0, 0, 100, 100))
    assert far
    assert box.overlap(Box(51, 30, 70, 70)) == 0
