"""Lay the patch grid of a slide at a given size and resolution, and keep the patches on tissue.

Shared by the plan, which samples from these patches, and `g2l embed`, which uses all. Left out: sampling and splits.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.config.groups import Grid
from pipeline.slides.geometry import PatchGeometry, area_fractions, patch_grid, readable_bounds
from pipeline.slides.reader import Slide
from pipeline.slides.tissue import TissueMask, find_tissue


@dataclass(frozen=True, eq=False)
class TissueGrid:
    """The N grid patches of one slide that lie on tissue.

    Attributes:
        geometry: how they are read.
        tissue: the slide's tissue mask.
        num_cells: number of patches in the whole grid, on tissue or not.
        coords_l0_px: int64 (N, 2), (x, y) of top left corners in level 0, in reading order.
        tissue_fraction: float64 (N,), the fraction of each patch's area on tissue.
        min_tissue: the least fraction that was required.
    """

    geometry: PatchGeometry
    tissue: TissueMask
    num_cells: int
    coords_l0_px: NDArray[np.int64]
    tissue_fraction: NDArray[np.float64]
    min_tissue: float

    @property
    def why_empty(self) -> str:
        """Why there is no patch, in words."""
        if not self.num_cells:
            return f"it is smaller than a patch ({self.geometry.patch_l0_px:.0f} pixels of level 0)"
        return f"no patch has {self.min_tissue:.0%} of its area on tissue"


def lay_grid(slide: Slide, wanted: Grid) -> TissueGrid:
    """Find the tissue of a slide and lay the grid over it.

    Raises:
        SlideError: the slide is too coarse for that resolution, or its file is gone.
    """
    info = slide.info
    geometry = slide.geometry(wanted.patch_px, wanted.mpp, allow_upsampling=wanted.allow_upsampling)
    tissue = find_tissue(slide)
    bounds = readable_bounds(info.bounds_l0_px, info.level_sizes_px[geometry.level], geometry.downsample)
    grid = patch_grid(bounds, geometry.patch_l0_px, wanted.stride_px * wanted.mpp / info.mpp)
    fraction = area_fractions(tissue.integral(), grid, geometry.patch_l0_px, tissue.pixel_l0_px)
    kept = fraction >= wanted.min_tissue
    return TissueGrid(geometry, tissue, len(grid), grid[kept], fraction[kept], wanted.min_tissue)
