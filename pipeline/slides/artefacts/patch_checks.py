"""Check a patch at its own resolution: one colour, no tissue, pen, out of focus. Pure.

What a patch is compared with is the slide's own: `SlideReference` holds medians over some of its patches, so that pale
stains and soft scanners are judged as they are. Colours are compared in blocks of `BLOCK_UM` and wider areas
(`patch_ink`). Sharpness is the energy of the finest differences over that of coarser ones, so that smooth tissue in
focus is kept (after Crete et al., "The blur effect", 2007). It is measured where there is tissue: a section's edge is
one high step, which outweighs nuclei among the coarser differences, so that glass and what lies next to it count for
nothing (decision 0099).

Left out: the same field twice, which no patch shows alone (`store.writer`); dust, bubbles and edges of the coverslip,
which a thumbnail shows (`docs/tissue.md`); folds, of which a patch says no more than the thumbnail (decision 0091).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.slides.artefacts.density import grown
from pipeline.slides.artefacts.patch_ink import InkReference, build_ink_reference, ink_share

Reason = Literal["one_colour", "no_tissue", "pen", "out_of_focus"]
"""Why a patch is dropped, in the order in which the checks are made."""

PATCH_RULES = 6
"""Version of the checks. A store keeps it, and is continued under it: raise it when a figure changes."""
LOOKS_BACK = 2
"""From this version on a field counts as there twice anywhere in a slide; before, within a shard (decision 0092)."""
JUDGES_PAIRS = 2
"""From this version on two neighbouring sixteenths out of focus drop a patch (decision 0091)."""
JUDGES_TISSUE = 3
"""From this version on glass does not count for focus (decision 0099)."""
JUDGES_SLITS = 4
"""From this version on slits do not count either, and two smooth sixteenths drop a patch (decision 0106)."""
JUDGES_TINT = 5
"""From this version on ink is judged as if it lay on white glass (decision 0070)."""
SPARES_EOSIN = 6
"""From this version on dense bone and fields of red cells are told from red ink (decision 0113)."""

BLOCK_UM = 4.0
"""Side of a block. Our choice: about half a nucleus, so that a stroke of pen has hundreds of them."""
MOST_LEVEL = 256.0
DENSITY_FLOOR = 0.02
"""Least density, so that ratios are finite. Our choice: five grey levels below white."""

ONE_COLOUR = 1.0
"""Largest deviation of green, in grey levels (0..255), of a patch of one colour. Our choice: rounding and JPEG's blocks
leave less; noise of any camera is more."""
GLASS_LEVEL, GLASS_CHROMA, GLASS_STEP = 190, 30, 6.0
"""A block is glass if its weakest channel is above this level, its channels differ by no more, and it differs from its
neighbours by no more. Our choice: pale stroma has more colour, fat and other thin lines have more steps."""
LEAST_TISSUE = 0.02
"""Least share of blocks that are not glass. Our choice: 2 % of a patch of 112 um are a dozen cells; fat has more."""
CLEAR_SHARE = 0.01
"""Share of the reference's blocks, the clearest, by which the tint of the glass is measured. Our choice: hundreds."""
LEAST_TINT = 0.03
"""Density in red or blue above that in green from which glass has a tint. Our choice: that of `glass.NEUTRAL`. H&E
absorbs green first. Where no block is clear, an even bluish or brown ground is taken for glass: its patches are not
dropped for it, for only ink is judged without the tint."""

MOST_PEN = 0.03
"""Share of the patch from which pen is dropped. Our choice: of 112 um a strip of 4 um."""

MOST_BLUR = 0.4
"""Largest drop of the logarithm of sharpness below the slide's median. Our choice: see `benchmarks/patch_qc.py`."""
MOST_QUARTER_BLUR = 0.8
"""The same of a quarter of the patch, so that the rim of what is out of focus goes. Our choice: quarters vary more, and
a Gaussian of two pixels lowers nearly all of them by 0.9 and more."""
MOST_PAIR_BLUR = 0.8
"""The same of two neighbouring sixteenths of the patch, both. Our choice: what is out of focus in a third of a patch
rarely fills a quarter of it. It costs 0.2 % of clean patches in the mean over eight slides and sets; a single sixteenth
0.2 to 1.3 % more.
"""
MOST_TISSUE_PAIR_BLUR, MOST_PART_BLUR = 0.65, 0.85
"""The same of two neighbouring sixteenths, and of one, where glass does not count. Our choice: without glass clean
patches vary less, so that no more of them are lost than by the wider bounds with glass, on four of five sets.
"""
PARTS = 4
"""Parts along a side: 28 um of a patch of 112 um."""
LEAST_PART_PX = 16
"""Side of a part from which its sharpness means anything. Our choice: fewer pixels of noise pass the bounds."""
LEAST_TISSUE_PART_PX = 24
"""The same where glass does not count; smaller patches are checked as before. Our choice: of 16 pixels, clean parts
pass the bounds."""
CELL_PX = 14.0
"""Wanted side of the cells that are glass or tissue, of which whole numbers make a part. Our choice: 7 um at 0.5 um/px,
one nucleus."""
GLASS_CELL = 190.0, 40.0, 10.0
"""A cell is glass if green has this mean at least, is that much brighter than in the darkest cell, and deviates by less
than the last. Our choice: tinted glass has 190, a step to glass is higher, and pale stroma deviates by 12 and more."""
SLIT_LEVEL, SLIT_SHARE = 220.0, 0.1
"""A cell with more than this share of pixels at this level of green or above, and as much brighter than the darkest
cell as glass, is at a slit or a lumen. Our choice: 205 does the same, and shares of 0.25 and 0.4 leave the narrowest.
"""
LEAST_OF_PART, LEAST_OF_PATCH = 0.4, 0.1
"""Least share of tissue in a part or quarter, and in a patch, from which it is judged. Our choice."""
LEAST_RELIEF = 4.0
"""Deviation of a quarter's blocks, in grey levels of green, from which it is out of focus if it has too little contrast
to measure sharpness. Our choice: of 1,300 patches of five sets none has so little contrast."""
LEAST_OF_FLAT, LEAST_FLAT_RELIEF = 0.75, 2.5
"""Least share of tissue in each of two neighbouring sixteenths that have too little contrast, and the deviation of the
blocks of all such ones from which they are out of focus. Our choice: of 3,064 patches of seven sets none has more
but such as are no tissue, and smooth ground between sections has less.
"""
EDGE_PX = 4
"""Distance of the coarser differences. Our choice: an edge in focus is narrower."""
LEAST_CONTRAST = 2.0
"""Least root mean square of the coarser differences, in grey levels, at which sharpness means anything. Our choice."""
FINE_NOISE, COARSE_NOISE = 20.0 / 12, 2.0 / 12
"""What rounding to whole grey levels adds to the two energies: a variance of 1/12 a pixel, times the squared weights of
the differences, 16 + 4 and 1 + 1."""


@dataclass(frozen=True)
class MeasuredPatch:
    """What one patch adds to its slide's reference: sharpness, `None` if it has too little contrast, and the densities
    of its blocks (H, W, 3).
    """

    sharpness: float | None
    densities: NDArray[np.float32]


@dataclass(frozen=True)
class SlideReference:
    """What is usual for a slide: the median logarithm of sharpness, `None` where no patch has contrast, and colours.

    `tint` is the density of its glass in red, green and blue above that in the clearest of them; 0 for white glass.
    """

    sharpness: float | None
    ink: InkReference
    tint: tuple[float, float, float] = (0.0, 0.0, 0.0)


@dataclass(frozen=True)
class PatchFault:
    """Why a patch is dropped: the reason, what was measured, and the bound that it passed."""

    reason: Reason
    value: float
    bound: float


def measure_patch(patch: NDArray[np.uint8], mpp: float, *, rules: int = PATCH_RULES) -> MeasuredPatch:
    """Measure a patch, uint8 (P, P, 3) of `mpp` um/px, for its slide's reference, by a version of the rules."""
    sharp = sharpness(patch, rules=rules)
    return MeasuredPatch(sharp, block_densities(block_means(patch, mpp)))


def build_reference(measured: Sequence[MeasuredPatch], *, rules: int = PATCH_RULES) -> SlideReference:
    """The reference of a slide from some of its patches, in any order."""
    known = [each.sharpness for each in measured if each.sharpness is not None]
    middle = float(np.median(known)) if known else None
    densities = [each.densities for each in measured]
    tint = _tint_of_glass(densities) if rules >= JUDGES_TINT else (0.0, 0.0, 0.0)
    return SlideReference(middle, build_ink_reference([_on_white(each, tint) for each in densities]), tint)


def _tint_of_glass(patches: Sequence[NDArray[np.float32]]) -> tuple[float, float, float]:
    """How much more of each channel than of its clearest the clearest blocks absorb, of densities (H, W, 3) each."""
    blocks = np.concatenate([np.empty((0, 3), np.float32), *(each.reshape(-1, 3) for each in patches)])
    if not len(blocks):
        return 0.0, 0.0, 0.0
    total = blocks.sum(axis=1)
    red, green, blue = np.median(blocks[total <= np.quantile(total, CLEAR_SHARE)], axis=0).tolist()
    if max(red, blue) - green <= LEAST_TINT:  # white, or as pink as pale tissue
        return 0.0, 0.0, 0.0
    clearest = min(red, green, blue)
    return red - clearest, green - clearest, blue - clearest


def _on_white(densities: NDArray[np.float32], tint: tuple[float, float, float]) -> NDArray[np.float32]:
    """Densities (..., 3) without those of tinted glass."""
    if not any(tint):
        return densities
    return np.asarray(np.maximum(densities - np.array(tint, np.float32), DENSITY_FLOOR), np.float32)


def check_patch(
    patch: NDArray[np.uint8], mpp: float, reference: SlideReference, *, rules: int = PATCH_RULES
) -> PatchFault | None:
    """Why a patch, uint8 (P, P, 3) of `mpp` um/px, is to be dropped; `None` if it is good.

    Args:
        rules: version of the rules, the one that the reference was measured by.
    """
    blocks = block_means(patch, mpp)
    deviation = float(blocks[..., 1].std())
    if deviation <= ONE_COLOUR and (deviation := float(patch[..., 1].std())) <= ONE_COLOUR:
        return PatchFault("one_colour", deviation, ONE_COLOUR)
    if (tissue := tissue_share(blocks)) < LEAST_TISSUE:
        return PatchFault("no_tissue", tissue, LEAST_TISSUE)
    densities = _on_white(block_densities(blocks), reference.tint)
    if (share := ink_share(densities, reference.ink, spares_eosin=rules >= SPARES_EOSIN)) > MOST_PEN:
        return PatchFault("pen", share, MOST_PEN)
    if reference.sharpness is None:
        return None
    if rules >= JUDGES_TISSUE and _has_cells(patch):
        return _check_tissue_focus(patch, blocks, reference.sharpness, rules)
    return _check_focus(patch, blocks, reference.sharpness, by_pairs=rules >= JUDGES_PAIRS)


def _check_tissue_focus(
    patch: NDArray[np.uint8], blocks: NDArray[np.uint8], usual: float, rules: int
) -> PatchFault | None:
    """As `_check_focus`, but of what is no glass; and whether one part is out of focus, or two are smooth."""
    parts = _in_parts(_cell_energies(patch, rules))
    quarters = _in_quarters(parts)
    areas = np.concatenate([parts.reshape(-1, 4), quarters.reshape(-1, 4), quarters.mean(axis=(0, 1))[None]])
    drops = _drops(areas, usual)
    each = drops[: PARTS**2].reshape(PARTS, PARTS)
    pairs = max(np.minimum(each[1:], each[:-1]).max(), np.minimum(each[:, 1:], each[:, :-1]).max())
    bounds = (MOST_BLUR, MOST_QUARTER_BLUR, MOST_TISSUE_PAIR_BLUR, MOST_PART_BLUR)
    for value, bound in zip((drops[-1], drops[PARTS**2 : -1].max(), pairs, each.max()), bounds, strict=True):
        if value > bound:
            return PatchFault("out_of_focus", float(value), bound)
    flat = quarters[..., 3].ravel() < LEAST_CONTRAST**2
    found = zip(_quarters(blocks[..., 1]), flat, strict=True)
    relief = max((float(block.std()) for block, is_flat in found if is_flat), default=0.0)
    if relief >= LEAST_RELIEF:
        return PatchFault("out_of_focus", relief, LEAST_RELIEF)
    if rules >= JUDGES_SLITS and (relief := _relief_of_flat(parts, blocks[..., 1])) >= LEAST_FLAT_RELIEF:
        return PatchFault("out_of_focus", relief, LEAST_FLAT_RELIEF)
    return None


def _relief_of_flat(parts: NDArray[np.float64], level: NDArray[np.uint8]) -> float:
    """Deviation of the blocks' level (H, W) over all parts (4, 4, 4) of tissue that have too little contrast to measure
    sharpness, as has a neighbour of theirs; 0 if there are none.
    """
    flat = (parts[..., 3] < LEAST_CONTRAST**2) & (parts[..., 2] >= LEAST_OF_FLAT)
    down, right = flat[1:] & flat[:-1], flat[:, 1:] & flat[:, :-1]
    paired = np.zeros_like(flat)
    paired[1:] |= down
    paired[:-1] |= down
    paired[:, 1:] |= right
    paired[:, :-1] |= right
    if not paired.any():
        return 0.0
    rows, columns = (np.arange(side) * PARTS // side for side in level.shape)
    return float(level[paired[np.ix_(rows, columns)]].std())


def _drops(areas: NDArray[np.float64], usual: float) -> NDArray[np.float64]:
    """How far below the `usual` one the logarithm of sharpness is, in all parts, quarters, and the patch: (N,), from
    what `_cell_energies` gives, in the mean over each, (N, 4). 0 with too little tissue, or with too little contrast.
    """
    share = np.maximum(areas[:, 2], 1e-6)
    fine, coarse = areas[:, 0] / share, areas[:, 1] / share
    sharp = np.log(np.maximum(fine - FINE_NOISE, FINE_NOISE / 10) / np.maximum(coarse, LEAST_CONTRAST**2)) / 2
    least = np.full(len(areas), LEAST_OF_PART)
    least[-1] = LEAST_OF_PATCH
    return np.asarray(np.where((share >= least) & (coarse >= LEAST_CONTRAST**2), usual - sharp, 0.0))


def _check_focus(
    patch: NDArray[np.uint8], blocks: NDArray[np.uint8], usual: float, *, by_pairs: bool
) -> PatchFault | None:
    """Whether a patch with these blocks, or a part of it, is out of focus against the `usual` sharpness."""
    parts = _part_energies(patch)
    whole = _sharpness(*parts.mean(axis=(0, 1)))
    if whole is not None and usual - whole > MOST_BLUR:
        return PatchFault("out_of_focus", usual - whole, MOST_BLUR)
    for energies, block in zip(_in_quarters(parts).reshape(-1, 2), _quarters(blocks[..., 1]), strict=True):
        sharp = _sharpness(*energies)
        if sharp is None and (relief := float(block.std())) >= LEAST_RELIEF:
            return PatchFault("out_of_focus", relief, LEAST_RELIEF)
        if sharp is not None and usual - sharp > MOST_QUARTER_BLUR:
            return PatchFault("out_of_focus", usual - sharp, MOST_QUARTER_BLUR)
    return _check_parts(parts, usual) if by_pairs and len(patch) >= PARTS * LEAST_PART_PX else None


def _check_parts(parts: NDArray[np.float64], usual: float) -> PatchFault | None:
    """Whether two neighbouring parts of a patch are out of focus, by their energies (4, 4, 2)."""
    fine, coarse = parts[..., 0], parts[..., 1]
    sharp = np.log(np.maximum(fine - FINE_NOISE, FINE_NOISE / 10) / np.maximum(coarse, LEAST_CONTRAST**2)) / 2
    drop = np.where(coarse >= LEAST_CONTRAST**2, usual - sharp, 0)
    pairs = max(np.minimum(drop[1:], drop[:-1]).max(), np.minimum(drop[:, 1:], drop[:, :-1]).max())
    return PatchFault("out_of_focus", float(pairs), MOST_PAIR_BLUR) if pairs > MOST_PAIR_BLUR else None


def block_means(patch: NDArray[np.uint8], mpp: float) -> NDArray[np.uint8]:
    """Mean colours of the patch's blocks: uint8 (H, W, 3). Of every second row where a block has four and more."""
    side = min(max(round(BLOCK_UM / mpp), 1), len(patch))
    step = 2 if side >= 4 else 1
    image = Image.fromarray(np.ascontiguousarray(patch[::step]))
    return np.asarray(image.reduce((side, max(side // step, 1))))


def block_densities(blocks: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Optical densities of blocks, natural logarithm: float32, of the same shape."""
    return np.asarray(_DENSITIES[blocks])


_DENSITIES = np.maximum(-np.log((np.arange(256, dtype=np.float32) + 1) / MOST_LEVEL), DENSITY_FLOOR)


def tissue_share(blocks: NDArray[np.uint8]) -> float:
    """Share of blocks (H, W, 3) that are not glass."""
    red, green, blue = blocks[..., 0], blocks[..., 1], blocks[..., 2]
    low, high = np.minimum(np.minimum(red, green), blue), np.maximum(np.maximum(red, green), blue)
    glass = (low >= GLASS_LEVEL) & (high - low <= GLASS_CHROMA)
    level = green.astype(np.int16)
    glass[:, 1:] &= np.abs(level[:, 1:] - level[:, :-1]) <= GLASS_STEP
    glass[1:] &= np.abs(level[1:] - level[:-1]) <= GLASS_STEP
    return 1.0 - float(glass.mean())


def sharpness(patch: NDArray[np.uint8], *, rules: int = PATCH_RULES) -> float | None:
    """Logarithm of how much of a patch's contrast is fine: root mean squares of the Laplacian and of differences over
    `EDGE_PX`, of green, in every second row. `None` with too little contrast. From `JUDGES_TISSUE` on it is of tissue,
    in patches that are large enough to have parts.
    """
    if rules < JUDGES_TISSUE or not _has_cells(patch):
        return _sharpness(*_part_energies(patch).mean(axis=(0, 1)))
    fine, coarse, share, _ = _cell_energies(patch, rules).mean(axis=(0, 1))
    return _sharpness(fine / share, coarse / share) if share >= LEAST_OF_PATCH else None


def _sharpness(fine: float, coarse: float) -> float | None:
    """The same of the two energies."""
    if coarse < LEAST_CONTRAST**2:
        return None
    return float(np.log(max(fine - FINE_NOISE, FINE_NOISE / 10) / coarse) / 2)


def _part_energies(patch: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Mean squares of the Laplacian and of differences over `EDGE_PX` in each of `PARTS` by `PARTS` parts of a patch:
    (4, 4, 2).
    """
    fine, across, down, _ = _differences(patch)
    coarse = (_energies(across) + _energies(down)) / 2 - COARSE_NOISE
    return np.stack([_energies(fine), coarse], axis=-1)


def _differences(
    patch: NDArray[np.uint8],
) -> tuple[NDArray[np.int16], NDArray[np.int16], NDArray[np.int16], NDArray[np.int16]]:
    """Of the green of a patch (P, P, 3): the Laplacian in every second row from the second on, without the rim; the
    differences over `EDGE_PX` along every second row from the first on, and down from each of these to another of them;
    and these rows. Rows are taken apart once, and are differed as one line each, whose ends are then left out.
    """
    even, odd = (np.ascontiguousarray(patch[start::2, :, 1], np.int16) for start in (0, 1))
    centre = odd[: len(even) - 1]
    fine = centre << 2
    fine -= even[: len(centre)]
    fine -= even[1 : len(centre) + 1]
    fine.ravel()[1:] -= centre.ravel()[:-1]
    fine.ravel()[:-1] -= centre.ravel()[1:]
    across = np.empty_like(even)
    np.subtract(even.ravel()[EDGE_PX:], even.ravel()[:-EDGE_PX], out=across.ravel()[:-EDGE_PX])
    return fine[:, 1:-1], across[:, :-EDGE_PX], even[EDGE_PX // 2 :] - even[: -EDGE_PX // 2], even


def _has_cells(patch: NDArray[np.uint8]) -> bool:
    """Whether a patch is large enough for its parts to be judged without glass."""
    return len(patch) >= PARTS * LEAST_TISSUE_PART_PX


def _cell_energies(patch: NDArray[np.uint8], rules: int) -> NDArray[np.float64]:
    """Of each cell of a patch (P, P, 3) the two energies and 1, all 0 for glass and what is next to it, and at slits;
    and the coarser energy of all: (N, N, 4). N is a multiple of `PARTS`.
    """
    fine, across, down, even = _differences(patch)
    size = len(patch)
    number = PARTS * max(1, round(size / PARTS / CELL_PX))
    cells = np.empty((number, number, 4))
    cells[..., 0] = _means_of_cells(_squared(fine), size, (1, 2), 1)
    coarse = _means_of_cells(_squared(across), size, (0, 2), EDGE_PX // 2)
    coarse += _means_of_cells(_squared(down), size, (EDGE_PX // 2, 2), 0)
    cells[..., 3] = cells[..., 1] = coarse / 2 - COARSE_NOISE
    level = even[::2].astype(np.float32)
    mean, square = (_means_of_cells(values, size, (0, 4), 0) for values in (level, level * level))
    least, above, most = GLASS_CELL
    darkest = float(mean.min())
    glass = (mean >= max(least, darkest + above)) & (square - mean * mean < most**2)
    unseen = grown(glass, 1)
    if rules >= JUDGES_SLITS:
        bright = (level >= max(SLIT_LEVEL, darkest + above)).astype(np.float32)
        unseen |= _means_of_cells(bright, size, (0, 4), 0) > SLIT_SHARE
    cells[..., 2] = ~unseen
    cells[..., :2] *= cells[..., 2:3]
    return cells


def _squared(values: NDArray[np.int16]) -> NDArray[np.float32]:
    return np.square(values, dtype=np.float32)


def _means_of_cells(values: NDArray[np.float32], size: int, rows: tuple[int, int], column: int) -> NDArray[np.float32]:
    """Means of values (H, W) over the cells of a patch of `size` pixels, (N, N). Values are of every so many `rows` of
    it from a first one on, and of all columns from `column` on.
    """
    down, right = _weights(size, *rows, values.shape[0]), _weights(size, column, 1, values.shape[1])
    return np.asarray(down.T @ (values @ right))


@lru_cache(maxsize=64)
def _weights(size: int, first: int, step: int, count: int) -> NDArray[np.float32]:
    """What each of so many rows or columns of a patch of `size` pixels adds to the mean of each cell: (count, N)."""
    number = PARTS * max(1, round(size / PARTS / CELL_PX))
    cell = (first + step * np.arange(count)) * number // size
    weights = (cell[:, None] == np.arange(number)).astype(np.float32)
    return np.asarray(weights / weights.sum(axis=0))


def _in_parts(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Means of cells (N, N, C) over the parts: (4, 4, C)."""
    side = len(values) // PARTS
    return np.asarray(values.reshape(PARTS, side, PARTS, side, -1).mean(axis=(1, 3)))


def _in_quarters(parts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Means of parts (4, 4, C) over the quarters: (2, 2, C)."""
    return (parts[::2, ::2] + parts[1::2, ::2] + parts[::2, 1::2] + parts[1::2, 1::2]) / 4


def _quarters(values: NDArray[Any]) -> tuple[NDArray[Any], ...]:
    """The quarters of (H, W); of less than two rows or columns some are the whole."""
    height, width = (max(side // 2, 1) for side in values.shape)
    return values[:height, :width], values[:height, -width:], values[-height:, :width], values[-height:, -width:]


def _energies(values: NDArray[np.int16]) -> NDArray[np.float64]:
    """Mean squares of the parts of (H, W): (4, 4). Rows and columns that are left over belong to none."""
    height, width = (side // PARTS for side in values.shape)
    parts = values[: height * PARTS, : width * PARTS].astype(np.float32).reshape(PARTS, height, PARTS, width)
    return np.asarray(np.einsum("ahbw,ahbw->ab", parts, parts) / max(height * width, 1), np.float64)
