"""All of a slide that a command reads is read again, and what cannot be read is passed over."""

from pathlib import Path

import numpy as np
import pytest
import support.slides as sf

from pipeline.base.errors import PatchError, SlideError
from pipeline.config.plan import PlanConfig
from pipeline.slides.read_again import read_patches, read_tissue
from pipeline.slides.reader import Slide
from pipeline.slides.tissue_grid import lay_grid


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Corners of the patches that were read; the second of them fails."""
    corners: list[tuple[int, int]] = []

    def read_patch(_: Slide, x: int, y: int, __: object) -> None:
        corners.append((x, y))
        if len(corners) == 2:
            raise PatchError("damaged")

    monkeypatch.setattr(Slide, "read_patch", read_patch)
    return corners


def test_patches_of_a_plan(tmp_path: Path, read: list[tuple[int, int]]) -> None:
    path = sf.make_slide(tmp_path / "a.svs", width=600, height=400, mpp=0.5, downsamples=(1,))
    geometry = Slide(path).geometry(64, 0.5)
    read_patches(path, None, geometry, np.array([[0, 0], [64, 0], [128, 64]]))
    assert read == [(0, 0), (64, 0), (128, 64)]
    with pytest.raises(SlideError):
        read_patches(tmp_path / "none.svs", None, geometry, np.zeros((1, 2), np.int64))


def test_all_patches_on_tissue(tmp_path: Path, read: list[tuple[int, int]]) -> None:
    path = sf.make_slide(tmp_path / "a.svs", width=600, height=400, mpp=0.5, downsamples=(1,))
    grid = PlanConfig.build({"patch_px": 64, "min_tissue": 0.0}).grid
    read_tissue(path, None, False, grid)
    assert read == [tuple(corner) for corner in lay_grid(Slide(path), grid).coords_l0_px.tolist()]
    assert len(read) > 20
