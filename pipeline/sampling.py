"""Patch-based sampling (G2L, section "Patch-based sampling"): which grid patches of a slide are taken. Pure.

Uniform without replacement, by rank of a hash: every grid patch gets a 64-bit key from (seed, slide id, x, y), and the
smallest keys are taken. So a slide's sample depends on nothing but the slide and the seed, is the same on every machine
and NumPy version, and a larger sample contains the smaller one. Left out: sampling by morphology or cluster.
"""

import hashlib
from typing import Final

import numpy as np
from numpy.typing import NDArray

TRAIN: Final = 0
"""Split code of a row that is trained on."""
VAL: Final = 1
"""Split code of a row that is held out."""
SPLITS: Final = ("train", "val")
"""Names of the split codes."""
GAP: Final = 255
"""Code of a patch that belongs to neither side of a held-out strip."""

# Constants of the SplitMix64 finaliser: Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014.
_MIX = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, None))


def _mix(keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64's finaliser, a bijection of 64-bit integers that decorrelates neighbours."""
    for shift, factor in _MIX:
        keys = keys ^ (keys >> np.uint64(shift))
        if factor is not None:
            keys = keys * np.uint64(factor)
    return keys


def patch_keys(slide_id: str, coords_l0_px: NDArray[np.int64], seed: int) -> NDArray[np.uint64]:
    """A 64-bit key for each of the (N, 2) patches, from the seed, the slide id and (x, y) alone; uint64 (N,)."""
    digest = hashlib.sha256(f"{seed}\0{slide_id}".encode()).digest()
    state = np.frombuffer(digest[:16], "<u8")
    xy = coords_l0_px.astype(np.uint64)
    return _mix(_mix(xy[:, 0] ^ state[0]) + (xy[:, 1] ^ state[1]))


def sample_patches(slide_id: str, coords_l0_px: NDArray[np.int64], num_patches: int, seed: int) -> NDArray[np.int64]:
    """Indices of a uniform sample without replacement of (N, 2) patches, ascending; all when there are no more than
    asked.
    """
    keys = patch_keys(slide_id, coords_l0_px, seed)
    return np.sort(np.argsort(keys, kind="stable")[:num_patches])


def rank_slides(slide_ids: list[str], seed: int) -> list[str]:
    """The ids in an order that is random for the user and fixed by (seed, id), so that `--max-slides` subsets nest."""
    return sorted(slide_ids, key=lambda slide_id: hashlib.sha256(f"{seed}\0{slide_id}".encode()).digest())


def split_strip(coords_l0_px: NDArray[np.int64], patch_l0_px: float, fraction: float) -> NDArray[np.uint8]:
    """Split the patches of one slide in space: a strip across the middle of its longer side is held out.

    For a single slide, which cannot be split by case. The strip lies in the middle, so that what is held out looks
    like what is trained on; at an end it would often be other tissue. About `fraction` of the patches lie in it.
    Returns uint8 (N,): `TRAIN`, `VAL` or `GAP`. On both sides of the strip a gap as wide as a patch belongs to neither,
    so that no train patch touches, nor lies within a patch's width of, a held-out one.
    """
    split = np.full(len(coords_l0_px), GAP, np.uint8)
    if not len(coords_l0_px):
        return split
    axis = int(np.argmax(np.ptp(coords_l0_px, axis=0)))
    along = coords_l0_px[:, axis]
    order, last = np.sort(along), len(along) - 1
    first_l0_px, last_l0_px = (order[round(last * (0.5 + sign * fraction / 2))] for sign in (-1, 1))
    split[(along >= first_l0_px) & (along <= last_l0_px)] = VAL
    split[(along + 2 * patch_l0_px <= first_l0_px) | (along >= last_l0_px + 2 * patch_l0_px)] = TRAIN
    return split
