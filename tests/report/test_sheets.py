"""Sheets of patches: what is on them, where, and what has a frame."""

from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.report.sheets import SHARED, draw_neighbours


def test_the_sheet_frames_what_the_teacher_finds_too(tmp_path: Path) -> None:
    grey = np.full((64, 64, 3), 128, np.uint8)
    path = tmp_path / "sheet.png"
    draw_neighbours([grey], {"teacher": [[(grey, False)]], "student": [[(grey, True)]]}, "title", path)
    pixels = np.asarray(Image.open(path).convert("RGB")).reshape(-1, 3)
    framed = (pixels == SHARED).all(axis=1).sum()
    assert framed == 4 * (92 - 4) * 4  # one frame, 4 px wide, round a patch of 92 px
