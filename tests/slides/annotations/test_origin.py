"""Which corner the coordinates of annotations count from."""

import numpy as np
import pytest

from pipeline.slides.annotations.drawn import DrawnRegion, Notes, ScannedPart
from pipeline.slides.annotations.origin import moved_to_slide, scanned_part

RING = np.array([(1.5, 2.0), (5.0, 2.0), (5.0, 9.0)])
REGIONS = [DrawnRegion(1, "a", [RING, RING + 1]), DrawnRegion(2, "b", [RING], is_hole=True)]


@pytest.mark.parametrize("scanned", [None, (0, 0, 40, 30)])
def test_a_slide_that_was_scanned_whole_has_no_part(scanned: tuple[int, int, int, int] | None) -> None:
    assert scanned_part(scanned, (40, 30)) is None


def test_the_part_that_was_scanned() -> None:
    assert scanned_part((10, 5, 20, 25), (40, 30)) == ScannedPart((10, 5), (20, 25))
    assert scanned_part((0, 0, 20, 30), (40, 30)) == ScannedPart((0, 0), (20, 30))


def test_regions_are_moved_and_nothing_else_of_them_changes() -> None:
    notes = Notes()
    moved = moved_to_slide(REGIONS, ScannedPart((100, 7), (20, 20), counts_from_it=True), notes)
    for before, after in zip(REGIONS, moved, strict=True):
        assert (after.number, after.class_name, after.is_hole) == (before.number, before.class_name, before.is_hole)
        for ring, was in zip(after.rings, before.rings, strict=True):
            np.testing.assert_array_equal(ring - was, np.tile((100, 7), (3, 1)))
    assert notes.lines() == (
        "its coordinates count from the corner of the scanned area, (100, 7), as QuPath's do; give --annotation-origin "
        "slide if they do not",
    )


@pytest.mark.parametrize("part", [ScannedPart((100, 7), (20, 20)), ScannedPart((0, 0), (20, 20), counts_from_it=True)])
def test_regions_that_count_from_the_slides_corner_stay(part: ScannedPart) -> None:
    notes = Notes()
    assert moved_to_slide(REGIONS, part, notes) == REGIONS
    assert notes.lines() == ()
