"""The draws of a slide's patches by the name that `g2l plan --sample` has for them. Pure."""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from pipeline.cohort.draws.spread import spread_patches
from pipeline.config.groups import SampleMethod, Sampling
from pipeline.sampling import sample_patches
from pipeline.slides.annotations.on_grid import sample_on_grid
from pipeline.slides.annotations.patch_classes import PatchClasses

Draw = Callable[[str, NDArray[np.int64], int | None, int], NDArray[np.int64]]
"""Indices, ascending, from a slide's id, its patches (N, 2), how many to take (`None`: all), and a seed."""

DRAWS: Mapping[SampleMethod, Draw] = {"uniform": sample_patches, "spread": spread_patches, "cluster": sample_patches}
"""Those by place alone; `sample_of_slide` knows the one by class as well; "cluster" draws its candidates so,
and `by_cluster` chooses among them. Each is decided by hashes of the seed and the
place, and its larger samples contain its smaller ones.
"""


def sample_by_method(
    method: SampleMethod, slide_id: str, coords_l0_px: NDArray[np.int64], num_patches: int | None, seed: int
) -> NDArray[np.int64]:
    """Indices of the sample of the (N, 2) patches, ascending; all of them if there are at most `num_patches`, or if
    that is `None`.
    """
    return DRAWS[method](slide_id, coords_l0_px, num_patches, seed)


def sample_of_slide(
    slide_id: str, coords_l0_px: NDArray[np.int64], classes: PatchClasses | None, sampling: Sampling
) -> NDArray[np.int64]:
    """Indices of the sample of a slide's (N, 2) patches, ascending. `classes` are those of its annotations, if any."""
    if sampling.method == "class":
        return sample_on_grid(slide_id, coords_l0_px, classes, sampling)
    return sample_by_method(sampling.method, slide_id, coords_l0_px, sampling.num_drawn, sampling.seed)
