"""Choose patches of a slide that lie far apart: the uniform draw's order, passing over what is too near. Pure.

Patches are gone through by the keys of the uniform draw, and one is taken if it keeps a distance from all that are
taken. At first that is as far as the patches reach; where no patch is left that keeps it, it is halved. So the sample
is decided by hashes, in integers, the same on every machine, and a larger sample contains the smaller one. Every patch
of the slide is nearer to a taken one than the distance before the last halving.

A Poisson-disk sample by dart throwing, in levels: McCool and Fiume, "Hierarchical Poisson disk sampling distributions",
1992. Greedy farthest points keep more distance and take far more patches at the rim of the tissue (decision 0073). Left
out: the content of patches.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from pipeline.sampling import patch_keys

UNREACHED: Final = np.iinfo(np.int64).max
"""Squared distance to the nearest taken patch, while none is near."""
TAKEN: Final = -1
"""In place of that distance, of a taken patch: it is not taken again, even if the patches have it twice."""
LARGEST_SPAN: Final = 2**30
"""Level-0 pixels that patches may reach over: squares of distances then fit in 64 bits."""


def spread_patches(
    slide_id: str, coords_l0_px: NDArray[np.int64], num_patches: int | None, seed: int
) -> NDArray[np.int64]:
    """Indices of patches of the (N, 2) that lie far apart, ascending; all of them if there are at most `num_patches`,
    or if that is `None`.
    """
    num = len(coords_l0_px)
    if num_patches is None or num_patches >= num:
        return np.arange(num)
    rows = np.lexsort((coords_l0_px[:, 0], coords_l0_px[:, 1]))
    places = coords_l0_px[rows]
    ranks = np.argsort(np.argsort(patch_keys(slide_id, places, seed), kind="stable"))
    return np.sort(rows[places_apart(places, ranks, num_patches)])


def places_apart(places: NDArray[np.int64], ranks: NDArray[np.int64], num_taken: int) -> list[int]:
    """Indices of the first `num_taken` of the (N, 2) places, in the order in which they are taken.

    Args:
        places: ascending by y.
        ranks: (N,), the order in which places are tried, each its own.
    """
    x, y = (places - places.min(axis=0)).T.copy()
    apart = int(max(x.max(), y.max()))
    assert num_taken <= len(places)
    assert apart < LARGEST_SPAN
    nearest = np.full(len(places), UNREACHED)
    taken: list[int] = []
    while len(taken) < num_taken:
        far = np.flatnonzero(nearest >= apart**2)
        for place in far[np.argsort(ranks[far])].tolist():
            if nearest[place] < apart**2:  # one that was taken since is too near
                continue
            band = slice(*np.searchsorted(y, (y[place] - apart, y[place] + apart + 1)))
            squared = (x[band] - x[place]) ** 2 + (y[band] - y[place]) ** 2
            np.minimum(nearest[band], squared, out=nearest[band])
            nearest[place] = TAKEN
            taken.append(place)
            if len(taken) == num_taken:
                break
        apart //= 2
    return taken
