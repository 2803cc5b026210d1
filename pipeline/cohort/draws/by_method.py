"""The draws of a slide's patches by the name that `g2l plan --sample` has for them. Pure."""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from pipeline.cohort.draws.spread import spread_patches
from pipeline.config.groups import SampleMethod
from pipeline.sampling import sample_patches

Draw = Callable[[str, NDArray[np.int64], int | None, int], NDArray[np.int64]]
"""Indices, ascending, from a slide's id, its patches (N, 2), how many to take (`None`: all), and a seed."""

DRAWS: Mapping[SampleMethod, Draw] = {"uniform": sample_patches, "spread": spread_patches}
"""Each is decided by hashes of the seed and the place alone, and its larger samples contain its smaller ones."""


def sample_by_method(
    method: SampleMethod, slide_id: str, coords_l0_px: NDArray[np.int64], num_patches: int | None, seed: int
) -> NDArray[np.int64]:
    """Indices of the sample of the (N, 2) patches, ascending; all of them if there are at most `num_patches`, or if
    that is `None`.
    """
    return DRAWS[method](slide_id, coords_l0_px, num_patches, seed)
