"""Lay the patch grid of a slide at a given size and resolution, and keep the patches on tissue.

Shared by the plan, which samples from these patches, and `g2l embed`, which uses all. With `--tiling level0` patches
are cut as a repository of the paper's authors cuts them (decision 0048); their tissue mask, which is not known, is left
out: ours is used. Left out as well: sampling and splits.
"""

from collections import Counter
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.base.console import counted
from pipeline.config.groups import Grid
from pipeline.config.tissue_rules import ARTEFACT_RULES, RULE_NAMES, RuleName, in_rule_order
from pipeline.slides.annotations.patch_classes import PatchClasses
from pipeline.slides.artefacts.rules import drop_artefacts, dropped_mm2
from pipeline.slides.geometry import PatchGeometry, area_fractions, integral_image, patch_grid, readable_bounds
from pipeline.slides.glass import brightest, strips
from pipeline.slides.reader import Slide
from pipeline.slides.tissue import MIN_BRIGHTNESS, TissueMask, find_tissue, like_tissue, reason_of

EDGE_POINTS = 2
"""Border points of a patch that must be on tissue, with `--tiling level0`. The paper's authors ask for two; which they
look at is not known, and four to choose from are ours.
"""
NO_COLOUR = (
    "its tissue is grey (red, green and blue are equal everywhere): is it one channel of several? Of an OME-TIFF with "
    "a page for each channel OpenSlide reads the first alone. Convert it to pixels of three colours, such as with "
    "raw2ometiff --rgb"
)
ON_BLACK = (
    "its tissue is bright on black, as in fluorescence, or the picture is inverted: G2L is for brightfield (H&E, IHC). "
    "Look at its picture (--overlays), and take it out of the manifest if it is not brightfield"
)
BLACK_SHARE = 0.5
"""Least share of what is not tissue that is too dark to have a colour, on a slide without glass, from which tissue is
called bright on black. Our choice: a brightfield scan has light wherever there is nothing.
"""
LIGHT_OF_TISSUE = 60
"""Weakest channel (0..255) that half of such tissue does not reach. Our choice: light passes through stained tissue in
all colours, and black beside it is not scanned; markers that glow have a colour each.
"""
LEAST_AROUND = 0.05
"""Least share of a slide that is not tissue for that. Our choice: a black frame alone says nothing."""
MOST_FADED = 0.2
"""Share of a slide that may be transparent in part without a warning. Our choice: seams of photos have less."""
MOSTLY_BARE = 0.5
"""Share of a slide without pixels that is told where there is no patch. Our choice: half."""
ALL_BARE = 0.999
"""Share of a slide without pixels from which there are none. Our choice: rounding at edges leaves a few."""
WATCHED_RULES: tuple[RuleName, ...] = ("haze", *ARTEFACT_RULES)
"""Rules that take parts of what has been found as tissue. Left out: specks, which are small."""
MOST_TAKEN = 0.2
"""Share of what had been found as tissue that one of these rules may take without a warning. Our choice: on ten
overviews and three slides ink, and haze around frozen sections, take 10 to 45 %, and nothing else more than 7 %.
"""
MIN_GROUP = 5
"""Smallest group of patches that is kept, with `--tiling level0`; the authors drop smaller ones."""


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
        is_found: whether the tissue was found here, by rules; otherwise it was given.
        is_grouped: whether small groups of patches were dropped.
        why_full: why tiles are decoded in full, where half was asked for; else empty.
        classes: classes of the slide's annotations on the patches; `None` without annotations.
        of_class: the rule by classes that dropped patches, in words; else empty.
        annotation_notes: what to know of how the annotations were read and used.
        rejected_l0_px: int64 (M, 2), corners of the other patches of the grid.
        rejected_fraction: float64 (M,), the fraction of the area of these on tissue.
        rejected_covered: bool (M,), which of these have enough tissue, and more of their area under artefacts than is
            allowed.
    """

    geometry: PatchGeometry
    tissue: TissueMask
    num_cells: int
    coords_l0_px: NDArray[np.int64]
    tissue_fraction: NDArray[np.float64]
    min_tissue: float
    is_found: bool = True
    is_grouped: bool = False
    why_full: str = ""
    classes: PatchClasses | None = None
    of_class: str = ""
    annotation_notes: tuple[str, ...] = ()
    rejected_l0_px: NDArray[np.int64] = field(default_factory=lambda: np.zeros((0, 2), np.int64))
    rejected_fraction: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    rejected_covered: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, np.bool_))

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is odd about how patches are read, about colours and annotations, if anything."""
        full = (f"its tiles are decoded in full: {self.why_full}",) if self.why_full else ()
        grey = (NO_COLOUR,) if is_grey(self.tissue) else ()
        on_black = (ON_BLACK,) if is_on_black(self.tissue) else ()
        greedy = greedy_rules(self.tissue) if self.is_found else ()
        faded = (faded_words(self.tissue),) if self.tissue.faded > MOST_FADED else ()
        return (*full, *grey, *on_black, *faded, *greedy, *self.annotation_notes)

    @property
    def why_empty(self) -> str:
        """Why there is no patch, in words."""
        if self.of_class:
            return self.of_class
        if not self.num_cells:
            return f"it is smaller than a patch ({self.geometry.patch_l0_px:.0f} pixels of level 0)"
        if self.tissue.bare >= ALL_BARE:
            return (
                "it has no pixels: all are transparent. Is its fourth channel, which counts as alpha, 0 everywhere? "
                "Write the file without it"
            )
        bare = f"; {self.tissue.bare:.0%} of it has no pixels: never scanned, or transparent (alpha)"
        bare = bare if self.tissue.bare > MOSTLY_BARE else ""
        groups = f" with its centre, in a group of {MIN_GROUP}" if self.is_grouped else ""
        covered = " without artefacts on more of it than --max-artefact allows" if self.rejected_covered.any() else ""
        return (
            f"no patch has {self.min_tissue:.0%} of its area on tissue{covered}{groups}{bare}{self._taken_by_rules()}"
        )

    def _taken_by_rules(self) -> str:
        """Which rules dropped what would be patches, in words; empty if none did."""
        counts = Counter(RULE_NAMES[number - 1] for number in dropped_patches(self)[1].tolist())
        if not counts:
            return ""
        named = ", ".join(f"{name} {counts[name]:,}" for name in RULE_NAMES if name in counts)
        return (
            f"; {counted(counts.total(), 'patch', 'patches')} would be taken without rules (most of each dropped by: "
            f"{named}). If the pictures of `g2l plan --overlays` show that this is tissue: --skip-rule NAME"
        )


def lay_grid(slide: Slide, wanted: Grid, tissue: TissueMask | None = None) -> TissueGrid:
    """Find the tissue of a slide, unless it is given, and lay the grid over it.

    Raises:
        SlideError: the slide is too coarse for that resolution, or its file is gone.
    """
    info = slide.info
    mpp = info.mpp if wanted.tiling else wanted.mpp
    geometry = slide.geometry(wanted.patch_px, mpp, allow_upsampling=wanted.allow_upsampling)
    why_full = slide.why_not_half(geometry) if wanted.decode == "half" else ""
    if wanted.decode == "half" and not why_full:
        geometry = replace(geometry, decode="half")
    geometry = geometry.reduced_by(wanted.resampling)
    is_found = tissue is None
    if tissue is None:
        tissue = find_tissue(slide, wanted.rules)
        tissue = drop_artefacts(tissue, tissue.pixel_l0_px * info.mpp)
    bounds = readable_bounds(info.bounds_l0_px, info.level_sizes_px[geometry.level], geometry.downsample)
    stride_l0_px = wanted.stride_px * mpp / info.mpp
    grid = patch_grid(bounds, geometry.patch_l0_px, stride_l0_px, geometry.halving)
    fraction = area_fractions(tissue.integral(), grid, geometry.patch_l0_px, tissue.pixel_l0_px)
    kept = fraction >= wanted.min_tissue
    covered = kept & (artefact_fractions(tissue, grid, geometry.patch_l0_px) > wanted.max_artefact)
    kept &= ~covered
    if wanted.tiling:
        kept &= centre_and_edges_on(tissue, grid, geometry.patch_l0_px)
        kept[kept] = in_groups(grid[kept], stride_l0_px)
    return TissueGrid(
        geometry,
        tissue,
        len(grid),
        grid[kept],
        fraction[kept],
        wanted.min_tissue,
        is_found,
        bool(wanted.tiling),
        why_full,
        rejected_l0_px=grid[~kept],
        rejected_fraction=fraction[~kept],
        rejected_covered=covered[~kept],
    )


def is_grey(tissue: TissueMask) -> bool:
    """Whether there is tissue that was read, and nothing that was read has a colour, not even beside tissue."""
    num_seen = 0
    for rows in strips(*tissue.mask.shape):
        readable = ~tissue.unreadable[rows]
        seen = tissue.thumbnail[rows][readable]
        num_seen += int((tissue.mask[rows] & readable).sum())
        if (seen != seen[:, :1]).any():
            return False
    return num_seen > 0


def faded_words(tissue: TissueMask) -> str:
    """A warning of a slide that is transparent in part."""
    return (
        f"{tissue.faded:.0%} of it is transparent in part, and its colours are mixed with the background's: does its "
        "fourth channel, which counts as alpha, mean something else? Then write the file without it"
    )


def is_on_black(tissue: TissueMask) -> bool:
    """Whether there is tissue of glowing colours and no glass, and most around the tissue is black."""
    if tissue.glass or not tissue.mask.any():
        return False
    num_around = num_black = num_tissue = num_glowing = 0
    for rows in strips(*tissue.mask.shape):
        image, readable = tissue.thumbnail[rows], ~tissue.unreadable[rows]
        inside, around = tissue.mask[rows] & readable, ~tissue.mask[rows] & readable
        num_around += int(around.sum())
        num_black += int((brightest(image[around]) < MIN_BRIGHTNESS).sum())
        num_tissue += int(inside.sum())
        num_glowing += int((image[inside].min(axis=1) < LIGHT_OF_TISSUE).sum())
    is_black_around = num_around >= LEAST_AROUND * tissue.mask.size and num_black >= BLACK_SHARE * num_around
    return is_black_around and 2 * num_glowing > num_tissue


def greedy_rules(tissue: TissueMask) -> list[str]:
    """A warning of each rule that took much of what had been found as tissue: artefacts, or tissue of a stain that
    looks like one.
    """
    counts = {name: number for name, number in dropped_mm2(tissue, 1.0).items() if name in WATCHED_RULES}
    found = float(tissue.mask.sum()) + sum(counts.values())
    return [
        f"the rule {name} took {count / found:.0%} of what had been found as tissue: look at the pictures of "
        f"`g2l plan --overlays`; if that is tissue, --skip-rule {name}"
        for name, count in counts.items()
        if count > MOST_TAKEN * found
    ]


def artefact_fractions(tissue: TissueMask, coords_l0_px: NDArray[np.int64], patch_l0_px: float) -> NDArray[np.float64]:
    """Fraction of each patch's area that rules for artefacts dropped: float64 (N,); 0 where nothing is known of it."""
    if tissue.reasons is None:
        return np.zeros(len(coords_l0_px))
    dropped = np.isin(tissue.reasons, [reason_of(name) for name in ARTEFACT_RULES])
    if not dropped.any():
        return np.zeros(len(coords_l0_px))
    return _fractions_within(dropped, tissue, coords_l0_px, patch_l0_px)


def _fractions_within(
    places: NDArray[np.bool_], tissue: TissueMask, coords_l0_px: NDArray[np.int64], patch_l0_px: float
) -> NDArray[np.float64]:
    """Fraction of each patch's area within `places`, bool of the mask's shape: float64 (N,)."""
    return area_fractions(integral_image(places), coords_l0_px, patch_l0_px, tissue.pixel_l0_px)


def covering_rules(grid: TissueGrid) -> dict[str, int]:
    """How many patches artefacts cover too much of, by the rule that took most of each; in the order of rules."""
    coords, reasons = grid.rejected_l0_px[grid.rejected_covered], grid.tissue.reasons
    if not len(coords) or reasons is None:
        return {}
    names = in_rule_order(ARTEFACT_RULES)
    patch_l0_px = grid.geometry.patch_l0_px
    shares = [_fractions_within(reasons == reason_of(name), grid.tissue, coords, patch_l0_px) for name in names]
    counts = np.bincount(np.argmax(shares, axis=0), minlength=len(names)).tolist()
    return {name: count for name, count in zip(names, counts, strict=True) if count}


def dropped_patches(grid: TissueGrid) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Patches that would be kept if what rules dropped, and the finder takes for tissue, were tissue, and those that
    artefacts cover too much of: their corners in level 0 (M, 2), and the rule that took most of each, uint8 (M,),
    numbered as in `TissueMask.reasons`.
    """
    tissue, coords, fraction = grid.tissue, grid.rejected_l0_px, grid.rejected_fraction
    shares = np.zeros((len(RULE_NAMES) + 1, len(coords)))
    if tissue.reasons is not None and len(coords):
        reasons = np.where(like_tissue(tissue, tissue.pixel_l0_px * grid.geometry.slide_mpp), tissue.reasons, 0)
        for number in np.unique(reasons[reasons > 0]).tolist():
            shares[number] = _fractions_within(reasons == number, tissue, coords, grid.geometry.patch_l0_px)
    lost = shares.sum(axis=0)
    would_be_kept = (fraction < grid.min_tissue) & (fraction + lost >= grid.min_tissue)
    dropped = (lost > 0) & (would_be_kept | grid.rejected_covered)
    return coords[dropped], shares[:, dropped].argmax(axis=0).astype(np.uint8)


def centre_and_edges_on(tissue: TissueMask, coords_l0_px: NDArray[np.int64], patch_l0_px: float) -> NDArray[np.bool_]:
    """Whether the centre of each patch, and at least `EDGE_POINTS` of the middles of its four edges, are on tissue:
    bool (N,).
    """
    middle, last = patch_l0_px / 2, patch_l0_px - 1
    points = np.array([(middle, middle), (middle, 0), (middle, last), (0, middle), (last, middle)])
    columns, rows = np.moveaxis((coords_l0_px[:, None] + points) / tissue.pixel_l0_px, -1, 0).astype(np.int64)
    height, width = tissue.mask.shape
    inside = (columns < width) & (rows < height)
    on = inside & tissue.mask[np.minimum(rows, height - 1), np.minimum(columns, width - 1)]
    kept: NDArray[np.bool_] = on[:, 0] & (on[:, 1:].sum(axis=1) >= EDGE_POINTS)
    return kept


def in_groups(coords_l0_px: NDArray[np.int64], stride_l0_px: float) -> NDArray[np.bool_]:
    """Whether each patch is in a group of at least `MIN_GROUP` patches that touch, also at corners: bool (N,)."""
    if not len(coords_l0_px):
        return np.zeros(0, np.bool_)
    cells = np.rint((coords_l0_px - coords_l0_px.min(axis=0)) / stride_l0_px).astype(np.int64)
    taken = np.zeros(cells.max(axis=0) + 1, np.bool_)
    taken[cells[:, 0], cells[:, 1]] = True
    groups, _ = ndimage.label(taken, structure=np.ones((3, 3)))
    numbers = groups[cells[:, 0], cells[:, 1]]
    large: NDArray[np.bool_] = (np.bincount(numbers) >= MIN_GROUP)[numbers]
    return large
