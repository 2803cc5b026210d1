"""Sample the patches of a slide by quotas of the classes that an annotation gives them. Pure.

All candidates are put into one order, of which a sample takes the first ones: so a larger sample contains the smaller
one, for the same quotas. Within a class, patches are in the order of their hash keys (`sampling.patch_keys`), as in a
uniform sample. Between classes, the r-th patch of a class with share s stands at (r + 1/2) / s: the rule of Webster
and Sainte-Laguë for seats in a parliament (Balinski and Young, "Fair Representation", 1982), by which every class is
within about one patch of its quota, until it has no more patches and the others share what it leaves. Patches of no
class come last. Left out: quotas over the whole cohort.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.sampling import patch_keys
from pipeline.slides.annotations.patch_classes import CLASS_DECIMALS

NO_CLASS = -1
"""Class of a patch that no quota counts."""


def class_of_patches(fractions: NDArray[np.float64], min_class: float) -> NDArray[np.int64]:
    """The class of each patch: the one with the largest share of its area (N, C), the first of equal ones, if that is
    at least `min_class`; else `NO_CLASS`. Returns int64 (N,), indices into the C classes.
    """
    if not fractions.shape[1]:
        return np.full(len(fractions), NO_CLASS, np.int64)
    largest = np.argmax(fractions, axis=1).astype(np.int64)
    return np.where(fractions.max(axis=1) >= min_class, largest, NO_CLASS)


def class_on_top(fractions: NDArray[np.float64], min_class: float) -> NDArray[np.int64]:
    """The class of each patch where the smaller of two classes that overlap lies on top; int64 (N,), indices into the C
    classes, or `NO_CLASS`.

    Of the classes that have at least `min_class` of a patch's area (N, C), each counts with what it shows: its share,
    but no more than what smaller classes leave. The one that shows most is taken, the smaller of equal ones. So a patch
    of classes that do not overlap is of the one that has most of it, and a focus drawn within another region has its
    own patches. A class is as large as its shares of all N patches together; of equally large ones the first is taken
    for the smaller.
    """
    if not fractions.shape[1]:
        return np.full(len(fractions), NO_CLASS, np.int64)
    whole = 10**CLASS_DECIMALS
    shares = np.rint(fractions * whole).astype(np.int64)  # whole numbers, whose sums are the same in any order
    by_size = np.argsort(shares.sum(axis=0), kind="stable")
    counted = np.where(fractions >= min_class, shares, 0)[:, by_size]
    covered = np.cumsum(counted, axis=1) - counted
    shown = np.minimum(counted, np.maximum(whole - covered, 0))
    return np.where(shown.max(axis=1) > 0, by_size[np.argmax(shown, axis=1)], NO_CLASS).astype(np.int64)


def order_by_quota(
    keys: NDArray[np.uint64], class_of_patch: NDArray[np.int64], shares: Sequence[float]
) -> NDArray[np.int64]:
    """The order in which patches are taken: int64 (N,), indices.

    Args:
        keys: hash key of each patch, (N,).
        class_of_patch: index into `shares` of each patch, or `NO_CLASS`; (N,).
        shares: of each class, above 0; relative to each other.
    """
    place = np.full(len(keys), np.inf)
    for index, share in enumerate(shares):
        members = np.flatnonzero(class_of_patch == index)
        ranked = members[np.argsort(keys[members], kind="stable")]
        place[ranked] = (np.arange(len(ranked)) + 0.5) / share
    return np.lexsort((keys, class_of_patch, place)).astype(np.int64)


def sample_by_class(
    slide_id: str,
    coords_l0_px: NDArray[np.int64],
    class_of_patch: NDArray[np.int64],
    shares: Sequence[float],
    num_patches: int | None,
    seed: int,
) -> NDArray[np.int64]:
    """Indices of a sample of the (N, 2) patches by quota, without replacement, ascending; all of them if there are at
    most `num_patches`, or if that is `None`. See `order_by_quota`.
    """
    keys = patch_keys(slide_id, coords_l0_px, seed)
    return np.sort(order_by_quota(keys, class_of_patch, shares)[:num_patches])
