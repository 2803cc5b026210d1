"""Outlines that are closed, mended or refused."""

import numpy as np
import pytest
import shapely
from numpy.typing import NDArray

from pipeline.base.errors import AnnotationError
from pipeline.slides.annotations.drawn import DrawnRegion, Notes, box_outline, ellipse_outline, shapes_by_class

SQUARE = np.array([(10.0, 10.0), (90.0, 10.0), (90.0, 90.0), (10.0, 90.0)])


def areas(*regions: DrawnRegion, size: tuple[int, int] = (100, 100)) -> tuple[dict[str, float], tuple[str, ...]]:
    """Area of each class, and the notes."""
    notes = Notes()
    shapes = shapes_by_class(regions, size, notes, "a.geojson", "slide-1")
    assert all(shape.is_valid for shape in shapes.values())
    return {name: shape.area for name, shape in shapes.items()}, notes.lines()


def test_the_last_point_may_be_the_first_or_not() -> None:
    for points in (SQUARE, np.vstack([SQUARE, SQUARE[:1]]), np.vstack([SQUARE, SQUARE[:1], SQUARE[:1]])):
        assert areas(DrawnRegion(1, "a", [points])) == ({"a": 6400.0}, ())


def test_points_that_follow_themselves_and_regions_without_area_are_left_out() -> None:
    line = np.array([(1.0, 1.0), (5.0, 5.0), (9.0, 9.0)])
    found, notes = areas(
        DrawnRegion(1, "a", [np.repeat(SQUARE, 3, axis=0)]),
        DrawnRegion(2, "a", [SQUARE[:2]]),
        DrawnRegion(3, "b", [line]),
        DrawnRegion(4, "b", [SQUARE[:0]]),
    )
    assert found == {"a": 6400.0}
    assert notes == (
        "1 region (number 1): points that follow themselves were left out",
        "2 regions (number 2, 4): an outline of fewer than 3 different points was left out",
        "1 region (number 3): it has no area and was left out",
    )


def test_holes_of_a_region_and_holes_of_a_class_are_cut_out() -> None:
    inner = box_outline(np.array([(20.0, 40.0), (40.0, 20.0)]))
    corner = box_outline(np.array([(80.0, 80.0), (100.0, 100.0)]))
    assert areas(DrawnRegion(1, "a", [SQUARE, inner]))[0] == {"a": 6000.0}
    found, notes = areas(
        DrawnRegion(1, "a", [SQUARE]), DrawnRegion(2, "a", [corner], is_hole=True), DrawnRegion(3, "b", [inner])
    )
    assert (found, notes) == ({"a": 6300.0, "b": 400.0}, ())
    assert areas(DrawnRegion(1, "a", [inner], is_hole=True)) == (
        {},
        ("class a has holes, but no regions that they could be taken out of",),
    )


def test_an_island_in_a_hole_stays_and_may_have_a_hole_of_its_own() -> None:
    def square(low: float, high: float) -> NDArray[np.float64]:
        return box_outline(np.array([(low, low), (high, high)]))

    found, notes = areas(
        DrawnRegion(1, "a", [SQUARE]),
        DrawnRegion(2, "a", [square(20, 80)], is_hole=True),
        DrawnRegion(3, "a", [square(40, 60)]),
        DrawnRegion(4, "a", [square(45, 50)], is_hole=True),
        DrawnRegion(5, "a", [square(20, 80)]),  # as large as the hole: no island
        DrawnRegion(6, "b", [square(40, 60)]),
    )
    assert found == {"a": 6400.0 - 3600 + 400 - 25, "b": 400.0}
    assert notes == (
        "1 region (number 5): holes take all of it away",
        "1 region (number 3): it lies within a hole and was kept",
    )


def test_an_island_may_touch_the_edge_of_its_hole() -> None:
    hole, island = (box_outline(np.array([(20.0, 20.0), (80.0, high)])) for high in (80.0, 30.0))
    found, notes = areas(
        DrawnRegion(1, "a", [SQUARE]), DrawnRegion(2, "a", [hole], is_hole=True), DrawnRegion(3, "a", [island])
    )
    assert found == {"a": 6400.0 - 3600 + 600}
    assert notes == ("1 region (number 3): it lies within a hole and was kept",)


def test_a_hole_larger_than_its_outline_is_refused_by_the_outlines_own_area() -> None:
    large = box_outline(np.array([(0.0, 0.0), (200.0, 200.0)]))
    with pytest.raises(AnnotationError, match=r"is smaller than its holes.* from 6,400 to 0 level-0 pixels \(100%"):
        areas(DrawnRegion(1, "a", [SQUARE, large]))


def box(low: tuple[float, float], side: float) -> NDArray[np.float64]:
    """The outline of a square by its corner with the smallest coordinates."""
    return box_outline(np.array([low, (low[0] + side, low[1] + side)]))


LARGE = box((0, 0), 100)
STRAY = "a hole that lies outside its outline was left out"


@pytest.mark.parametrize("side", [10, 50, 150])
@pytest.mark.parametrize("is_crossed", [False, True])
def test_a_hole_outside_its_outline_is_left_out(side: float, is_crossed: bool) -> None:
    """Small, large, and larger than the outline; also one that crosses itself."""
    stray, inner = box((200, 200), side), box((20, 20), 10)
    if is_crossed:
        stray = stray[[0, 2, 1, 3]]
    assert areas(DrawnRegion(3, "a", [LARGE, stray]), size=(400, 400)) == (
        {"a": 10000.0},
        (f"1 region (number 3): {STRAY}",),
    )
    found, notes = areas(DrawnRegion(3, "a", [LARGE, stray, inner, stray + 1]), size=(400, 400))
    assert (found, notes) == ({"a": 9900.0}, (f"1 region (number 3): {STRAY}",))
    island = DrawnRegion(4, "a", [stray if not is_crossed else box((200, 200), side)])
    found, _ = areas(DrawnRegion(3, "a", [LARGE, stray]), island, size=(400, 400))
    assert found == {"a": 10000.0 + side**2}  # what is drawn there itself stays


def test_a_stray_hole_hides_no_other_fault() -> None:
    stray, loop = box((200, 200), 50), np.vstack([SQUARE, [(10.0, 12.0)], [(12.0, 9.0)], [(8.0, 9.0)]])
    found, notes = areas(DrawnRegion(1, "a", [loop, stray]), size=(400, 400))
    assert found["a"] == pytest.approx(6400, rel=0.01)
    assert notes[0].endswith(STRAY)
    assert "self-intersection: mended, its area went from 6,396 to 6,401" in notes[1]
    eight = np.array([(10.0, 10.0), (90.0, 90.0), (90.0, 10.0), (10.0, 90.0)])
    with pytest.raises(AnnotationError, match="crosses itself"):
        areas(DrawnRegion(1, "a", [eight, stray]), size=(400, 400))
    line = np.array([(1.0, 1.0), (5.0, 5.0), (9.0, 9.0)])
    assert areas(DrawnRegion(1, "a", [line, stray]), size=(400, 400))[0] == {}
    assert areas(DrawnRegion(1, "a", [SQUARE, line + 200]), size=(400, 400))[0] == {"a": 6400.0}


def test_many_holes_are_not_each_cut_with_the_whole_outline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an outline that crosses itself each of 3,600 holes was, which took half a minute; nor is what lies on the
    slide cut at its edge.
    """
    corners = [(x, y) for x in range(15, 85, 5) for y in range(15, 85, 5)]
    loop = np.vstack([SQUARE, [(10.0, 12.0)], [(12.0, 9.0)], [(8.0, 9.0)]])
    holes, calls = [box(corner, 2) for corner in corners], list[object]()
    cut = shapely.intersection
    monkeypatch.setattr(shapely, "intersection", lambda a, b: calls.append(b) or cut(a, b))
    found, notes = areas(DrawnRegion(1, "a", [loop, *holes, box((200, 200), 5)]), size=(400, 400))
    assert found["a"] == pytest.approx(6401 - 4 * len(corners), abs=1)
    assert notes[0].endswith(STRAY)
    assert len(calls) == 1  # with the stray hole


def test_a_hole_whose_outline_is_none_is_no_region() -> None:
    for outline in (SQUARE[:2], SQUARE[:0]):
        found, notes = areas(DrawnRegion(1, "a", [outline, box((20, 20), 10)]))
        assert found == {}
        assert notes == ("1 region (number 1): an outline of fewer than 3 different points was left out",)


@pytest.mark.parametrize(("corner", "area"), [((95, 20), 9950), ((0, 20), 9900), ((20, 20), 9900)])
def test_a_hole_that_passes_its_outline_is_taken_out_of_it(corner: tuple[float, float], area: float) -> None:
    found, notes = areas(DrawnRegion(1, "a", [LARGE, box(corner, 10)]), size=(400, 400))
    assert found == {"a": area}
    assert not any(STRAY in line for line in notes)


@pytest.mark.parametrize("corner", [(100, 20), (100, 100)])
@pytest.mark.parametrize("side", [10, 50])
def test_a_hole_outside_that_touches_its_outline_is_left_out(corner: tuple[float, float], side: float) -> None:
    found, notes = areas(DrawnRegion(1, "a", [LARGE, box(corner, side)]), size=(400, 400))
    assert (found, notes) == ({"a": 10000.0}, (f"1 region (number 1): {STRAY}",))


def test_any_holes_leave_what_the_outline_has_without_them() -> None:
    """Against shapely's difference: holes inside, outside, across the outline, over each other, and touching."""
    random, noted = np.random.default_rng(0), 0
    for number in range(300):
        turn = random.uniform(0, 2 * np.pi) if number % 2 else 0.0
        matrix = np.array([(np.cos(turn), -np.sin(turn)), (np.sin(turn), np.cos(turn))])
        corners = random.integers(-3, 14, (random.integers(1, 5), 2)) * 10
        holes = [box((x, y), random.integers(1, 3) * 5) for x, y in corners]
        rings = [ring @ matrix.T + 300 for ring in (LARGE, *holes)]
        outline, *taken = map(shapely.Polygon, rings)
        wanted = shapely.difference(outline, shapely.union_all(taken)).area
        found, notes = areas(DrawnRegion(1, "a", rings), size=(700, 700))
        assert found["a"] == pytest.approx(wanted, rel=1e-9), (number, corners)
        is_stray = any(shapely.distance(outline, hole) > 1e-6 for hole in taken)
        assert any(line.endswith(STRAY) for line in notes) or not is_stray
        noted += is_stray
    assert 50 < noted < 280


def test_regions_of_a_class_that_overlap_count_once() -> None:
    found, _ = areas(DrawnRegion(1, "a", [SQUARE]), DrawnRegion(2, "a", [SQUARE + 5]))
    assert found["a"] == pytest.approx(2 * 6400 - 75 * 75)


def test_a_loop_at_the_start_of_a_line_is_mended_and_noted() -> None:
    loop = np.vstack([SQUARE, [(10.0, 12.0)], [(12.0, 9.0)], [(8.0, 9.0)]])
    found, notes = areas(DrawnRegion(7, "a", [loop]))
    assert found["a"] == pytest.approx(6400, rel=0.01)
    assert notes[0].startswith("1 region (number 7): self-intersection: mended, its area went from 6,396 to 6,401")


def test_a_figure_of_eight_is_refused() -> None:
    eight = np.array([(10.0, 10.0), (90.0, 90.0), (90.0, 10.0), (10.0, 90.0)])
    with pytest.raises(AnnotationError, match=r"a\.geojson: the outline of region 1 \(class a\) crosses itself"):
        areas(DrawnRegion(1, "a", [eight]))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
def test_a_coordinate_that_is_none_is_refused(value: float) -> None:
    ring = SQUARE.copy()
    ring[2, 1] = value
    with pytest.raises(AnnotationError, match=r"region 2 has a coordinate that is infinite, huge or not a number"):
        areas(DrawnRegion(1, "a", [SQUARE]), DrawnRegion(2, "b", [ring]))


def test_what_lies_beyond_the_slide_is_cut_off_and_most_of_it_refused() -> None:
    found, notes = areas(DrawnRegion(1, "a", [SQUARE]), DrawnRegion(2, "b", [SQUARE + 200]), size=(100, 200))
    assert found == {"a": 6400.0}
    assert notes == ("class b: 100.0% of its area lies beyond the slide and was cut off",)
    with pytest.raises(
        AnnotationError, match=r"62% of its regions' area lies beyond slide slide-1, which has 40 x 100"
    ):
        areas(DrawnRegion(1, "a", [SQUARE]), size=(40, 100))


def test_a_hair_beyond_the_edge_is_not_worth_a_note() -> None:
    assert areas(DrawnRegion(1, "a", [SQUARE]), size=(100, 90))[1] == ()
    assert areas(DrawnRegion(1, "a", [SQUARE + np.array([0.0, 0.05])]), size=(100, 90))[1] == ()


def test_an_ellipse_has_nearly_its_area() -> None:
    found, _ = areas(DrawnRegion(1, "a", [ellipse_outline(np.array([(90.0, 10.0), (10.0, 50.0)]))]))
    assert found["a"] == pytest.approx(np.pi * 40 * 20, rel=1e-4)


def test_a_class_in_several_spellings_is_noted_once() -> None:
    notes = Notes()
    names = [notes.class_named(*parts) for parts in (("Tum\u00f6r",), ("Tumo\u0308r ",), ("Tum\u00f6r",), ("b", " c"))]
    assert names == ["Tum\u00f6r", "Tum\u00f6r", "Tum\u00f6r", "b: c"]
    assert notes.spellings == {"Tum\u00f6r": ("Tum\u00f6r", "Tumo\u0308r "), "b: c": ("b:  c",)}
    assert notes.lines() == ("class Tum\u00f6r is spelled in 2 ways, taken as one: 'Tum\\xf6r', 'Tumo\\u0308r '",)
