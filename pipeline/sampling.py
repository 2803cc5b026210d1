"""Patch-based sampling (G2L, section "Patch-based sampling"): choose grid patches of a slide. Pure.

Uniform without replacement, by hash: each grid patch gets a 64-bit key from (seed, slide id, x, y), and those with the
smallest keys are taken. So the sample depends only on the slide and the seed, is the same on every machine and NumPy
version, and a larger sample contains the smaller one. Left out: sampling by morphology or cluster.
"""

import hashlib
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

TRAIN: Final = 0
"""Split code of a row that is trained on."""
VAL: Final = 1
"""Split code of a row that is held out."""
SPLIT_NAMES: Final = ("train", "val")
"""Names of the split codes."""
RowNumbers = NDArray[np.signedinteger[Any]]
"""Numbers of rows, (N,); in 4 bytes each where these hold them, for a store may have many millions."""
GAP: Final = 255
"""Split code of a patch next to a held-out strip, which is not used."""

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
    """A 64-bit key for each of the (N, 2) patches, from seed, slide id and (x, y) only; uint64 (N,)."""
    digest = hashlib.sha256(f"{seed}\0{slide_id}".encode()).digest()
    state = np.frombuffer(digest[:16], "<u8")
    xy = coords_l0_px.astype(np.uint64)
    return _mix(_mix(xy[:, 0] ^ state[0]) + (xy[:, 1] ^ state[1]))


def sample_patches(
    slide_id: str, coords_l0_px: NDArray[np.int64], num_patches: int | None, seed: int
) -> NDArray[np.int64]:
    """Indices of a uniform sample of the (N, 2) patches without replacement, ascending; all of them if there are at
    most `num_patches`, or if that is `None`.
    """
    keys = patch_keys(slide_id, coords_l0_px, seed)
    return np.sort(np.argsort(keys, kind="stable")[:num_patches])


def rank_slides(slide_ids: list[str], seed: int) -> list[str]:
    """Shuffle the ids by a hash of (seed, id), so that the subsets of `--max-slides` nest."""
    return sorted(slide_ids, key=lambda slide_id: hashlib.sha256(f"{seed}\0{slide_id}".encode()).digest())


def split_strip(coords_l0_px: NDArray[np.int64], patch_l0_px: float, fraction: float) -> NDArray[np.uint8]:
    """Split the patches of one slide in space: hold out a strip across the middle of its longer side.

    For a single slide, which cannot be split by case. The strip holds about `fraction` of the patches. It lies in the
    middle, where it looks like the training patches; at an end it would often be other tissue. Returns uint8 (N,):
    `TRAIN`, `VAL` or `GAP`. A gap on both sides of the strip is left out, so that every train patch is at least a
    patch's width away from every held-out one.
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
