"""Find a slide's tissue: a mask at about 8 um/px from colour saturation.

Saturation is measured relative to the slide's glass (`glass`), so that a tint is not tissue. After a median filter,
Otsu's threshold separates tissue from glass. Two bounds keep the threshold from finding tissue on a blank slide or
splitting a slide full of tissue; by the rule "faint" they follow the slide's own glass, and a second look finds pale
tissue beside dark. Specks are removed and small holes filled. Unreadable areas count as tissue, so that damage shows up
as failed rows. Each rule (`config.tissue_rules`) can be left out; what rules of this module drop is kept by reason.
Left out: pen marks, folds, blur (`artefacts.rules`).
"""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.filters import threshold_otsu

from pipeline.config.tissue_rules import EARLIER_RULES, RULE_NAMES, RuleName
from pipeline.slides.artefacts.density import opened, steps
from pipeline.slides.artefacts.frame import black_areas, find_border, find_haze
from pipeline.slides.geometry import integral_image
from pipeline.slides.glass import (
    REACH,
    Colour,
    brightest,
    find_background,
    find_glass,
    is_among,
    new_tints,
    saturation_against_glass,
    strips,
    without_textured,
)
from pipeline.slides.median import median_filter
from pipeline.slides.reader import Slide
from pipeline.slides.whole_slide import read_whole

MIN_SATURATION, MAX_SATURATION = 0.05, 0.12
"""Bounds of the saturation threshold (0..1). Our choice: on slides that we inspected, glass lies below 0.03 and pale
stroma above 0.1.
"""
MIN_BRIGHTNESS = 40
"""A pixel whose brightest channel (0..255) is darker is a scan border or a mark; its saturation means nothing. Our
choice.
"""
MEDIAN_UM = 40.0
"""Width of the median filter. Our choice: removes dust, keeps strands of a few cells."""
MIN_TISSUE_MM2 = 0.02
"""Smaller specks are removed. Our choice: a little more than one 112 um patch."""
MAX_HOLE_MM2 = 0.05
"""Smaller holes (lumina, tears, fat) are filled. Our choice: about four patches."""
LEAST_FAINT = 0.02
"""Lowest bound of the saturation threshold by the rule "faint". Our choice: two steps of an 8-bit channel at 243."""
SPREADS = 4.0
"""The lower bound lies this many standard deviations of the glass's saturation above its median. Our choice: of normal
noise 3 in 100,000 pixels lie above, and the median filter leaves fewer.
"""
STAINED = 0.01
"""How far green may lie below red and blue in a glass colour, as shares of the brightest one's. Our choice: labels and
unscanned areas are neutral; the palest tissue that we tried has 0.012.
"""
FAINT_UM, FAINT_MM2 = 40.0, 0.1
"""A second look keeps areas of pale tissue that are wider than this, and larger than this. Our choice: the
membranes of fat and the rims of tissue are thinner; 0.1 mm2 is eight patches of 112 um.
"""
FAINT_RIM_UM = 24.0
"""What it adds beside dark tissue is wider than this, and no speck. Our choice: the rim that filter and optics leave
around tissue is one to two pixels of the mask.
"""
SPECKLED = 0.2
"""Least share of speckles of dark tissue among pale tissue that may be as strong as the threshold. Our choice: tissue
half of which is above it has 0.3 and more, fat and its threads less.
"""
BLIND_RULES: tuple[RuleName, ...] = ("border", "dark")
"""Rules that run before tissue is looked for: what they drop is too dark to be judged."""


def reason_of(rule: RuleName) -> int:
    """The number of a rule in `TissueMask.reasons`."""
    return RULE_NAMES.index(rule) + 1


@dataclass(frozen=True)
class TissueMask:
    """Tissue of a slide.

    Attributes:
        mask: bool (H, W); its top left corner is the slide's.
        pixel_l0_px: side of a mask pixel in level-0 pixels.
        unreadable: bool (H, W), part of `mask`: areas that could not be read.
        thumbnail: uint8 (H, W, 3), the same frame; unreadable areas are black.
        reasons: uint8 (H, W), which rule dropped a pixel: its place in `RULE_NAMES` plus 1; 0 where none did. `None` if
            no rule dropped anything.
        glass: the colours of the slide's glass, most frequent first.
        rules: the rules by which it was found.
        bare: share of the slide (0..1) without pixels: never scanned, or transparent.
        faded: share of the slide (0..1) that is transparent in part.
    """

    mask: NDArray[np.bool_]
    pixel_l0_px: float
    unreadable: NDArray[np.bool_]
    thumbnail: NDArray[np.uint8]
    reasons: NDArray[np.uint8] | None = None
    glass: tuple[Colour, ...] = ()
    rules: tuple[RuleName, ...] = EARLIER_RULES
    bare: float = 0.0
    faded: float = 0.0

    def dropped_by(self, rule: RuleName) -> NDArray[np.bool_]:
        """Where that rule dropped something: bool (H, W)."""
        if self.reasons is None:
            return np.zeros_like(self.mask)
        return np.asarray(self.reasons == reason_of(rule))

    def integral(self) -> NDArray[np.float64]:
        """Summed-area table of the mask, (H+1, W+1)."""
        return integral_image(self.mask)


def find_tissue(slide: Slide, rules: Collection[RuleName] = EARLIER_RULES) -> TissueMask:
    """Segment the tissue of a slide by those of the `rules` that are in this module.

    Raises:
        SlideError: its mask would be larger than that of any slide, or its file is gone.
    """
    whole = read_whole(slide)
    thumbnail, unreadable, pixel_l0_px = whole.image, whole.unreadable, whole.pixel_l0_px
    slide.direct.forget_tiles()  # each was read for the last time, and they are as many bytes as the masks below
    pixel_um = pixel_l0_px * slide.info.mpp
    unscanned = whole.unscanned if whole.unscanned.any() else None
    found = look_for_tissue(thumbnail, pixel_um, unreadable, rules, unscanned)
    mask = found.mask | unreadable
    x, y, width, height = (value / pixel_l0_px for value in slide.info.bounds_l0_px)
    outside = np.ones_like(mask)
    outside[int(y) : int(np.ceil(y + height)), int(x) : int(np.ceil(x + width))] = False
    mask[outside | whole.unscanned] = False  # also of holes that were filled: nothing can be read there
    found.reasons[outside | unreadable] = 0
    return TissueMask(
        mask,
        pixel_l0_px,
        unreadable & ~outside,
        thumbnail,
        found.reasons,
        tuple(found.glass),
        tuple(rules),
        float(whole.unscanned[~outside].mean()) if not outside.all() else 0.0,
        whole.num_faded / mask.size,
    )


@dataclass(frozen=True)
class FoundTissue:
    """Tissue in a picture.

    Attributes:
        mask: bool (H, W).
        reasons: uint8 (H, W), as in `TissueMask`.
        glass: the colours of the glass.
    """

    mask: NDArray[np.bool_]
    reasons: NDArray[np.uint8]
    glass: list[Colour]


def segment(
    image: NDArray[np.uint8],
    pixel_um: float,
    ignore: NDArray[np.bool_] | None = None,
    rules: Collection[RuleName] = EARLIER_RULES,
) -> NDArray[np.bool_]:
    """Segment tissue in an RGB image (H, W, 3) of `pixel_um` micrometres per pixel: bool (H, W). Skips pixels in
    `ignore`.
    """
    return look_for_tissue(image, pixel_um, np.zeros(image.shape[:2], bool) if ignore is None else ignore, rules).mask


def look_for_tissue(
    image: NDArray[np.uint8],
    pixel_um: float,
    ignore: NDArray[np.bool_],
    rules: Collection[RuleName],
    unscanned: NDArray[np.bool_] | None = None,
) -> FoundTissue:
    """Segment tissue as `segment`, and keep what was dropped, by reason. `unscanned` pixels, bool (H, W), have the
    slide's background.
    """
    reasons = np.zeros(image.shape[:2], np.uint8)
    known, light = ~ignore, brightest(image)
    if "border" in rules:
        _drop(reasons, known, find_border(image, light, pixel_um, known), "border")
    if "dark" in rules:
        _drop(reasons, known, light < MIN_BRIGHTNESS, "dark")
    median_px = max(1, round(MEDIAN_UM / pixel_um)) | 1
    glass, background = glass_colours(image, known, rules)
    if unscanned is not None and "faint" in rules:
        glass, background = with_scanned_glass(image, known & ~unscanned, rules, glass, background)
    smoothed = image
    if background is not None:  # often noisy, and noise in the channels adds saturation
        glass.insert(0, background)
        smoothed = median_filter(image, median_px)
    saturation = saturation_against_glass(smoothed, glass)
    saturation[~known] = 0
    saturation = median_filter(saturation, median_px)
    if "faint" in rules:
        mask = with_faint(saturation, known, glass_limit(saturation, smoothed, known, glass), pixel_um)
    else:
        mask = saturation > otsu_threshold(saturation[known], MIN_SATURATION)
    if "grey" in rules and glass and not mask.any():
        mask = grey_tissue(smoothed, known, glass, median_px)
    if "haze" in rules:
        _drop(reasons, mask, find_haze(image, light, pixel_um, mask, saturation), "haze")
    del saturation  # floats of the slide's size; labels of that size come next
    pixel_mm2 = (pixel_um / 1000) ** 2
    if "specks" in rules:
        large = without_small(mask, int(MIN_TISSUE_MM2 / pixel_mm2))
        _drop(reasons, mask, mask & ~large, "specks")
    holes = ndimage.binary_fill_holes(mask) & ~mask  # enclosed holes only: glass at the border is not a hole
    mask |= holes & ~without_small(holes, int(MAX_HOLE_MM2 / pixel_mm2))
    reasons[mask] = 0
    return FoundTissue(mask, reasons, glass)


def glass_colours(
    image: NDArray[np.uint8], known: NDArray[np.bool_], rules: Collection[RuleName]
) -> tuple[list[Colour], Colour | None]:
    """What counts as glass in an RGB image (H, W, 3): its glass colours, and its background if it has one.

    By the rule "faint" without those that are of pale tissue.
    """
    glass = find_glass(image, known)
    background = find_background(image, known, glass)
    if "faint" not in rules:
        return glass, background
    glass, background = without_stained(glass, background)
    kept = without_textured(image, known, glass if background is None else [*glass, background])
    return [colour for colour in glass if colour in kept], background if background in kept else None


def with_scanned_glass(
    image: NDArray[np.uint8],
    scanned: NDArray[np.bool_],
    rules: Collection[RuleName],
    glass: list[Colour],
    background: Colour | None,
) -> tuple[list[Colour], Colour | None]:
    """The glass colours and the background of an RGB image (H, W, 3), and tinted ones of its `scanned` part (H, W),
    which may be small: a colour of it that covers much of the part covers little of the whole.

    The first of those of the part comes first, unless it counts as the first of the whole: densities are measured
    against it.
    """
    of_part, behind = glass_colours(image, scanned, rules)
    of_part = of_part if behind is None else [behind, *of_part]
    of_whole = glass if background is None else [background, *glass]
    kinds = [*of_whole, *new_tints(of_part, of_whole)]
    if of_part and not is_among(of_part[0], of_whole[:1]):
        kinds = [of_part[0], *(kind for kind in kinds if not is_among(kind, of_part[:1]))]
    is_coarse = background is not None or (behind is not None and not is_among(behind, of_whole))
    return (kinds[1:], kinds[0]) if is_coarse else (kinds, None)


def like_tissue(found: TissueMask, pixel_um: float) -> NDArray[np.bool_]:
    """Where rules dropped what the finder would take for tissue without them: bool (H, W).

    Rules from "specks" on drop of what was taken for tissue; "border" and "dark" run before anything is, and drop
    black and glass as well. Of these two it is what the finder takes without both, and what has a colour: black is seen
    to be no tissue.
    """
    if found.reasons is None:
        return np.zeros_like(found.mask)
    early = np.isin(found.reasons, [reason_of(name) for name in BLIND_RULES])
    like = (found.reasons > 0) & ~early
    if early.any():
        image = found.thumbnail
        black = black_areas(image, brightest(image), ~found.unreadable)
        rules = [name for name in found.rules if name not in BLIND_RULES]
        like |= early & ~black & segment(image, pixel_um, found.unreadable | black, rules)
    return like


def _drop(reasons: NDArray[np.uint8], kept: NDArray[np.bool_], dropped: NDArray[np.bool_], rule: RuleName) -> None:
    """Take what a rule drops out of `kept`, and write down the rule."""
    dropped &= kept
    reasons[dropped] = reason_of(rule)
    kept &= ~dropped


def otsu_threshold(values: NDArray[np.float32], least: float, *, is_colour_enough: bool = True) -> float:
    """Otsu's threshold of saturations (N,) within bounds. If all values are one, that is tissue if it is a strong
    colour, unless that is not enough: a picture of one colour shows nothing.
    """
    if values.size == 0 or np.ptp(values) == 0:
        return MAX_SATURATION if is_colour_enough else 1.0
    return min(max(float(threshold_otsu(values)), least), MAX_SATURATION)


def glass_limit(
    saturation: NDArray[np.float32], image: NDArray[np.uint8], known: NDArray[np.bool_], glass: list[Colour]
) -> float:
    """The saturation above which a pixel is not the slide's glass: its median there, and `SPREADS` deviations.

    Between `LEAST_FAINT`, also without glass, and `MIN_SATURATION`, the bound of earlier versions.
    """
    near = np.zeros_like(known)
    for colour in glass:
        like = known.copy()
        for channel, level in enumerate(colour):
            like &= (image[..., channel] >= level - REACH) & (image[..., channel] <= level + REACH)
        near |= like
    values = saturation[near]
    if not values.size:
        return LEAST_FAINT
    middle = float(np.median(values))
    below = middle - values[values <= middle]  # the upper half has pale tissue, too
    spread = float(np.sqrt(np.mean(below**2)))
    return float(np.clip(middle + SPREADS * spread, LEAST_FAINT, MIN_SATURATION))


def with_faint(
    saturation: NDArray[np.float32], known: NDArray[np.bool_], low: float, pixel_um: float
) -> NDArray[np.bool_]:
    """Tissue by Otsu's threshold, of which `low` is the lower bound, and what a second look adds: solid areas above
    `low`, since one threshold for a slide is that of its dark tissue. bool (H, W).
    """
    threshold = otsu_threshold(saturation[known], low, is_colour_enough=False)
    mask = saturation > threshold
    if threshold > MAX_SATURATION:  # a picture of one colour
        return np.asarray(mask)
    pale = solid_areas(saturation > low, FAINT_UM, FAINT_MM2, pixel_um)
    if threshold == MAX_SATURATION:  # there is dark tissue, which has a rim
        beside = solid_areas(pale & ~mask, FAINT_RIM_UM, MIN_TISSUE_MM2, pixel_um)
        pale = beside | solid_areas(pale & half_dark(mask, pixel_um), FAINT_RIM_UM, MIN_TISSUE_MM2, pixel_um)
    return np.asarray(mask | pale)


def half_dark(mask: NDArray[np.bool_], pixel_um: float) -> NDArray[np.bool_]:
    """Where much of a mask (H, W) is, in speckles: tissue about as strong as its threshold, of which neither half is
    solid. Fat, threads and rims have fewer.
    """
    solid = solid_areas(mask, FAINT_UM, MIN_TISSUE_MM2, pixel_um)
    sigma = FAINT_UM / pixel_um
    speckles = ndimage.gaussian_filter((mask & ~solid).astype(np.float32), sigma)
    return np.asarray(~solid & (speckles > SPECKLED * ndimage.gaussian_filter((~solid).astype(np.float32), sigma)))


def without_stained(glass: list[Colour], background: Colour | None) -> tuple[list[Colour], Colour | None]:
    """The glass colours and the background without those that look like the brightest of them with stain on it: even
    pale tissue, smooth over 0.2 mm. Haematoxylin and eosin absorb green first.
    """
    clear = max(glass if background is None else [*glass, background], key=sum, default=None)
    if clear is None:
        return glass, background

    def is_stained(colour: Colour) -> bool:
        red, green, blue = (part / whole for part, whole in zip(colour, clear, strict=True))
        return min(red, blue) - green > STAINED

    kept = [colour for colour in glass if not is_stained(colour)]
    return kept, background if background is None or not is_stained(background) else None


def solid_areas(mask: NDArray[np.bool_], width_um: float, least_mm2: float, pixel_um: float) -> NDArray[np.bool_]:
    """The areas of a mask (H, W) that are wider than `width_um`, and of these those of more than `least_mm2`."""
    return without_small(opened(mask, steps(width_um / 2, pixel_um)), int(least_mm2 / (pixel_um / 1000) ** 2))


def grey_tissue(
    image: NDArray[np.uint8], known: NDArray[np.bool_], glass: list[Colour], median_px: int
) -> NDArray[np.bool_]:
    """What is darker than all glass, by Otsu's threshold within the bounds for saturation: bool (H, W)."""
    light = min(max(colour) for colour in glass)
    darkness = (1 - brightest(image).astype(np.float32) / light).clip(0, 1)
    darkness[~known] = 0
    darkness = median_filter(darkness, median_px)
    mask: NDArray[np.bool_] = darkness > otsu_threshold(darkness[known], MIN_SATURATION, is_colour_enough=False)
    return mask


def without_small(mask: NDArray[np.bool_], most_px: int) -> NDArray[np.bool_]:
    """A mask (H, W) without its objects of at most `most_px` pixels; pixels that share a side are of one object.

    As skimage's `remove_small_objects`, but counts and removes strip by strip: that takes three times the memory.
    """
    labels, number = ndimage.label(mask)
    sizes = np.zeros(number + 1, np.int64)
    for rows in strips(*mask.shape):
        inside = labels[rows][mask[rows]]
        if len(inside):
            counts = np.bincount(inside - inside.min())  # labels of a strip lie close together
            sizes[inside.min() :][: len(counts)] += counts
    large = sizes > most_px
    kept = np.empty_like(mask)
    for rows in strips(*mask.shape):
        kept[rows] = large[labels[rows]]
    return kept
