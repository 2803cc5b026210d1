"""Sheets of patches: what is on them, where, and what has a frame."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.report.sheets import FRAME_RGB, GAP_PX, MARGIN_PX, PATCH_PX, draw_best_and_worst, draw_neighbours


def test_the_sheet_frames_what_the_teacher_finds_too(tmp_path: Path) -> None:
    grey = np.full((64, 64, 3), 128, np.uint8)
    path = tmp_path / "sheet.png"
    draw_neighbours([grey], {"teacher": [[(grey, False)]], "student": [[(grey, True)]]}, "title", path)
    pixels = np.asarray(Image.open(path).convert("RGB")).reshape(-1, 3)
    framed = (pixels == FRAME_RGB).all(axis=1).sum()
    assert framed == 4 * (92 - 4) * 4  # one frame, 4 px wide, round a patch of 92 px


COLOURS = [(200, 30, 30), (30, 160, 60), (40, 60, 200), (220, 180, 20)]


def patch(colour: tuple[int, int, int], side: int = 64) -> np.ndarray:
    return np.full((side, side, 3), colour, np.uint8)


def area(path: Path, colour: tuple[int, int, int]) -> tuple[int, int, int]:
    """Pixels of a colour on a page, and their left and top edge."""
    with Image.open(path) as page:
        rows, columns = np.nonzero((np.asarray(page.convert("RGB")) == colour).all(axis=2))
    return len(rows), int(columns.min()), int(rows.min())


def test_neighbours_stand_in_the_row_of_their_query_nearest_first(tmp_path: Path) -> None:
    first, second, near, far = (patch(colour, side) for colour, side in zip(COLOURS, (64, 92, 32, 224), strict=True))
    path = tmp_path / "sheet.png"
    draw_neighbours([first, second], {"a": [[(near, False), (far, False)], [(near, False), (far, False)]]}, "t", path)
    found = [area(path, colour) for colour in COLOURS]
    whole = PATCH_PX**2
    assert [count for count, _, _ in found] == [whole, whole, 2 * whole, 2 * whole]
    (_, x, y), (_, x2, y2), (_, near_x, near_y), (_, far_x, far_y) = found
    assert (x, x2, y2 - y) == (MARGIN_PX, MARGIN_PX, PATCH_PX + GAP_PX)
    assert (far_x - near_x, far_y, near_y) == (PATCH_PX + GAP_PX, y, y)
    assert near_x > x + PATCH_PX


def test_a_second_encoder_stands_beside_the_first(tmp_path: Path) -> None:
    query, one, two = (patch(colour) for colour in COLOURS[:3])
    narrow, wide = tmp_path / "narrow.png", tmp_path / "wide.png"
    draw_neighbours([query], {"a": [[(one, False)]]}, "t", narrow)
    draw_neighbours([query], {"a": [[(one, False)]], "b": [[(two, True)]]}, "t", wide)
    assert area(wide, COLOURS[2])[1] > area(wide, COLOURS[1])[1] + PATCH_PX
    with Image.open(narrow) as first, Image.open(wide) as second:
        assert second.width - first.width > PATCH_PX
        assert second.height == first.height


def test_the_best_and_the_worst_are_rows_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "sheet.png"
    best, worst = ([(patch(colour), "0.9")] for colour in COLOURS[:2])
    draw_best_and_worst({"best": best, "worst": worst + worst}, "t", path)
    (count, x, y), (twice, below_x, below_y) = (area(path, colour) for colour in COLOURS[:2])
    assert (count, twice) == (PATCH_PX**2, 2 * PATCH_PX**2)
    assert below_x == x
    assert below_y >= y + PATCH_PX


def test_the_same_patches_give_the_same_bytes_and_no_patch_no_sheet(tmp_path: Path) -> None:
    pages = []
    for name in ("a.png", "b.png"):
        draw_best_and_worst({"best": [(patch(COLOURS[0]), "1")]}, "t", tmp_path / name)
        pages.append((tmp_path / name).read_bytes())
    assert pages[0] == pages[1]
    with pytest.raises(ValueError, match="empty"):
        draw_best_and_worst({}, "t", tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()
