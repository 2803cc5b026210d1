"""The patches that a slide offers: the grid at the wanted size and resolution, as far as it lies on tissue.

One way for the plan, which then samples, and for `g2l embed`, which takes all of them. Left out: sampling and splits.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.config.stages import PlanConfig
from pipeline.slides.geometry import PatchGeometry, area_fractions, patch_grid, readable_bounds
from pipeline.slides.reader import Slide
from pipeline.slides.tissue import TissueMask, find_tissue


@dataclass(frozen=True, eq=False)
class TissueGrid:
    """The grid patches of one slide that lie on tissue, N of them.

    Attributes:
        geometry: how they are read.
        tissue: where the slide has tissue.
        num_cells: patches of the whole grid, on tissue or not.
        coords_l0_px: int64 (N, 2), (x, y) of top left corners in level 0, in reading order.
        tissue_fraction: float64 (N,), the fraction of each patch's area on tissue.
        min_tissue: the fraction that was asked for.
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


def lay_grid(slide: Slide, config: PlanConfig) -> TissueGrid:
    """Find the tissue of a slide and lay the grid over it.

    Raises:
        SlideError: the slide is too coarse for the wanted resolution, or its file is gone.
    """
    info = slide.info
    geometry = slide.geometry(config.patch_px, config.mpp, allow_upsampling=config.allow_upsampling)
    tissue = find_tissue(slide)
    bounds = readable_bounds(info.bounds_l0_px, info.level_sizes_px[geometry.level], geometry.downsample)
    stride_l0_px = (config.stride_px or config.patch_px) * config.mpp / info.mpp
    grid = patch_grid(bounds, geometry.patch_l0_px, stride_l0_px)
    fraction = area_fractions(tissue.integral(), grid, geometry.patch_l0_px, tissue.pixel_l0_px)
    kept = fraction >= config.min_tissue
    return TissueGrid(geometry, tissue, len(grid), grid[kept], fraction[kept], config.min_tissue)
