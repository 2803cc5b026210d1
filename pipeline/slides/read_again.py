"""Read all of a slide that a command reads, and keep nothing: for a child process that may crash at it (`at_hand`)."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import PatchError
from pipeline.config.groups import Grid
from pipeline.slides.geometry import PatchGeometry
from pipeline.slides.reader import Slide
from pipeline.slides.tissue_grid import lay_grid


def read_patches(
    path: Path,
    manifest_mpp: float | None,
    geometry: PatchGeometry,
    coords_l0_px: NDArray[np.int64],
    copy: Path | None = None,
) -> None:
    """Read the patches of a plan, (N, 2) corners in level 0; passes over those that cannot be read. `copy`: as in
    `slides.reader.Slide`.

    Raises:
        SlideError: the slide cannot be opened, or is gone.
    """
    _read(Slide(path, manifest_mpp, mpp_overrides=True, copy=copy), geometry, coords_l0_px)


def read_tissue(
    path: Path, manifest_mpp: float | None, mpp_overrides: bool, grid: Grid, copy: Path | None = None
) -> None:
    """Find the tissue of a slide, and read all patches on it. `copy`: as in `slides.reader.Slide`.

    Raises:
        SlideError: the slide cannot be opened, or is gone.
    """
    slide = Slide(path, manifest_mpp, mpp_overrides=mpp_overrides, copy=copy)
    laid = lay_grid(slide, grid)
    _read(slide, laid.geometry, laid.coords_l0_px)


def _read(slide: Slide, geometry: PatchGeometry, coords_l0_px: NDArray[np.int64]) -> None:
    for x, y in coords_l0_px.tolist():
        try:
            slide.read_patch(x, y, geometry)
        except PatchError:
            continue
