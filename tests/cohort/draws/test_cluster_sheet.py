"""The contact sheet of clusters: a row each, without what cannot be read."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.base.errors import PatchError
from pipeline.cohort.draws.cluster_sheet import CLUSTER_SHEET, write_cluster_sheet


def read(slide_id: str, x: int, y: int) -> NDArray[np.uint8]:
    if slide_id == "bad":
        raise PatchError("damaged")
    return np.full((64, 64, 3), (x, y, 0), np.uint8)


def test_a_row_a_cluster_and_none_of_what_cannot_be_read(tmp_path: Path) -> None:
    places = {1: [("a", 200, 10), ("bad", 0, 0)], 2: [], 3: [("b", 10, 200)]}
    write_cluster_sheet(places, read, tmp_path / CLUSTER_SHEET)
    with Image.open(tmp_path / CLUSTER_SHEET) as sheet:
        colours = {colour for _, colour in sheet.getcolors(1 << 24)}
    assert {(200, 10, 0), (10, 200, 0)} <= colours
    write_cluster_sheet({1: [("bad", 0, 0)]}, read, tmp_path / "none" / CLUSTER_SHEET)
    assert not (tmp_path / "none").exists()
