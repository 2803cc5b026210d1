"""Find the colour of a slide's glass and measure saturation relative to it, so that tinted glass is not tissue. Pure.

Old mounting media are cream or yellow, and some scanners tint blue: such glass has a saturation of 0.1 to 0.3, above
any fixed threshold for tissue. Light passes stain and glass in turn, so dividing by the glass's colour removes the tint
from both (Beer and Lambert). Unlike tissue, glass is smooth at a few micrometres a pixel, bright, and not pink or
purple. Glass that is dark, strongly tinted, lilac or noisy fails these tests; it is found as the colour that covers
much of the slide and is smooth at a coarser scale, where tissue still varies and noise averages out. Even pale tissue
has smooth places, too, and is told from glass by the others. Left out: glass whose tint changes across the slide, and
pink glass, which looks like pale tissue, as does blue glass that is mottled.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

WINDOW_PX = 5
"""Side of the square tested for smoothness, mask pixels (40 um). Our choice: a few cells."""
MAX_DEVIATION = 2.5
"""Largest standard deviation of a channel (0..255) within the square. Our choice: on slides that we inspected, glass
has 0 to 1.5 and tissue 5 to 30.
"""
MIN_LIGHT = 160
"""Least brightness, the mean of the channels (0..255); marks and borders are darker. Our choice."""
MAX_TINT = 0.45
"""Largest saturation (0..1) of glass. Our choice: strong yellow has 0.35, felt pens more."""
MAX_PINK = 0.04
"""How far green may lie below both red and blue, as a fraction of the brightest channel. Haematoxylin and eosin absorb
green first, so anything pinker is tissue. Our choice.
"""
MIN_SHARE = 0.01
"""Least share of the slide that a glass colour covers. Our choice: smaller areas do no visible harm."""
NEUTRAL = 0.03
"""Glass of lower saturation counts as white, so that masks of ordinary slides do not depend on it. Our choice: white
glass lies below it on slides that we inspected.
"""
BIN = 8
"""Bin width of the colour histogram, grey levels."""
REACH = 12
"""Largest distance in any channel from the centre of a glass colour to a colour that counts as it, grey levels."""
MOST_KINDS = 3
"""Most glass colours: of the slide, its label, and unscanned areas. Our choice."""
COARSE_PX = 5
"""Side of the squares that are averaged to find the background, mask pixels (40 um). Our choice: noise of 10 grey
levels becomes 2, below `MAX_DEVIATION`, which is then measured over 200 um.
"""
BACKGROUND_SHARE = 0.1
"""Least share of the slide that a background covers. Our choice: on slides that we inspected, no mark or tissue of one
colour covers as much."""
BACKGROUND_LIGHT = 100
"""Least brightness of a background, the mean of the channels (0..255). Our choice: grey and amber glass has 150."""
BACKGROUND_TINT = 0.7
"""Largest saturation of a background (0..1). Our choice: amber has 0.55; above 0.7 the division amplifies noise."""
BACKGROUND_PINK = 0.08
"""How far green may lie below red and blue on a slide without other glass. Our choice: lilac has 0.05, a slide full of
tissue more than 0.1.
"""
NEAR = 4
"""Largest distance in any channel from a glass colour to squares by which it is judged, grey levels. Our choice: nearer
than pale tissue is to its glass.
"""
LEAST_SMOOTH = 0.7
"""Least share of smooth squares among those of a glass colour. Our choice: tinted glass that we tried has 0.9 and more,
an even counterstain 0.05 to 0.5.
"""
MOST_OF_NOISE = 0.45
"""Unevenness of means of squares, against that within them, that may still be noise. Our choice: white noise leaves
0.2, on a tint that changes across the slide up to 0.35, an even counterstain 0.6 and more.
"""

STRIP_PX = 2**18
"""Pixels that are looked at in one go, so that memory does not grow with the slide. Our choice: some 10 MB."""

Colour = tuple[float, float, float]


def find_glass(image: NDArray[np.uint8], known: NDArray[np.bool_]) -> list[Colour]:
    """Find the glass colours of an RGB image (H, W, 3) among the pixels `known` (H, W), most frequent first.

    Empty if there are none, as on a slide covered with tissue.
    """
    colours, counts = _choose(*_smooth_colours(image, known), MIN_LIGHT, MAX_TINT, MAX_PINK)
    return _frequent_colours(colours, counts, max(MIN_SHARE * float(known.sum()), 1.0), MOST_KINDS)


def find_background(image: NDArray[np.uint8], known: NDArray[np.bool_], glass: list[Colour]) -> Colour | None:
    """Find a glass colour that covers much of an RGB image (H, W, 3) but is not in `glass`, the result of `find_glass`:
    dark, strongly tinted, lilac or noisy glass. `None` if there is none.
    """
    means, whole = _in_squares(image), _in_squares(known[..., None])[..., 0] == 1
    if not whole.size:
        return None
    most_pink = MAX_PINK if glass else BACKGROUND_PINK
    smooth = means[whole & _is_smooth(means)]
    candidates = _choose(smooth, np.ones(len(smooth), np.int64), BACKGROUND_LIGHT, BACKGROUND_TINT, most_pink)
    for colour in _frequent_colours(*candidates, max(BACKGROUND_SHARE * float(whole.sum()), 1.0), MOST_KINDS):
        if not any(np.abs(np.subtract(colour, kind)).max() <= REACH for kind in glass):
            return colour
    return None


def without_textured(image: NDArray[np.uint8], known: NDArray[np.bool_], colours: Sequence[Colour]) -> list[Colour]:
    """Those of the glass colours of an RGB image (H, W, 3) that are not of even pale tissue, such as a counterstain.

    Some places of it are as smooth as glass, and their colour counts as one; most are not, and unlike noise their
    unevenness is left in means of squares. Neutral colours are kept, for nothing is measured against them, and those
    that absorb blue most, as old mounting media do and haematoxylin and eosin do not: such glass may be mottled.
    """
    tinted = [colour for colour in colours if _tint(colour) > NEUTRAL and not _is_yellow(colour, colours)]
    if not tinted:
        return list(colours)
    means, whole = _in_squares(image), _in_squares(known[..., None])[..., 0] == 1
    within = np.sqrt(brightest(np.maximum(_in_squares(image, is_squared=True) - means**2, 0)))
    between = np.sqrt(_variance(means))

    def is_textured(colour: Colour) -> bool:
        like = whole & (np.abs(means - np.array(colour, np.float32)) <= NEAR).all(axis=2)
        if not like.any() or (within[like] <= MAX_DEVIATION).mean() >= LEAST_SMOOTH:
            return False
        return bool(np.median(between[like]) > MOST_OF_NOISE * np.median(within[like]))

    return [colour for colour in colours if colour not in tinted or not is_textured(colour)]


def _in_squares(values: NDArray[Any], *, is_squared: bool = False) -> NDArray[np.float32]:
    """Means of an image (H, W, C), or of its squares, over squares of `COARSE_PX`: float32 (H', W', C)."""
    rows, columns = values.shape[0] // COARSE_PX, values.shape[1] // COARSE_PX
    means = np.empty((rows, columns, values.shape[2]), np.float32)
    for part in strips(rows, columns * COARSE_PX**2):
        inside = values[part.start * COARSE_PX : part.stop * COARSE_PX, : columns * COARSE_PX]
        inside = inside.astype(np.float32) ** 2 if is_squared else inside
        squares = inside.reshape(part.stop - part.start, COARSE_PX, columns, COARSE_PX, values.shape[2])
        means[part] = squares.mean(axis=(1, 3), dtype=np.float32)
    return means


def strips(height: int, width: int) -> Iterator[slice]:
    """The rows of an image, in strips of about `STRIP_PX` pixels."""
    num_rows = max(1, STRIP_PX // max(width, 1))
    return (slice(top, min(top + num_rows, height)) for top in range(0, height, num_rows))


def brightest(image: NDArray[Any]) -> NDArray[Any]:
    """The largest channel of each pixel of (H, W, 3). numpy's `max` along so short an axis is ten times as slow."""
    return np.asarray(np.maximum(np.maximum(image[..., 0], image[..., 1]), image[..., 2]))


def _darkest(image: NDArray[Any]) -> NDArray[Any]:
    """The smallest channel of each pixel of (H, W, 3)."""
    return np.asarray(np.minimum(np.minimum(image[..., 0], image[..., 1]), image[..., 2]))


def _smooth_colours(
    image: NDArray[np.uint8], known: NDArray[np.bool_]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The colours (N, 3) of the smooth `known` pixels of an image (H, W, 3), each once, and how many have each (N,)."""
    height, width = known.shape
    margin = WINDOW_PX // 2
    numbers, counts = [], []
    for rows in strips(height, width):
        first, last = max(rows.start - margin, 0), min(rows.stop + margin, height)
        smooth = _is_smooth(image[first:last].astype(np.float32))[rows.start - first : rows.stop - first]
        pixels = image[rows][known[rows] & smooth].astype(np.int32)
        each, count = np.unique((pixels[:, 0] << 16) + (pixels[:, 1] << 8) + pixels[:, 2], return_counts=True)
        numbers.append(each)
        counts.append(count)
    each, place = np.unique(np.concatenate(numbers), return_inverse=True)
    total = np.bincount(place, np.concatenate(counts), len(each)).astype(np.int64)
    return np.stack([each >> 16, each >> 8 & 255, each & 255], axis=1).astype(np.float32), total


def _choose(
    colours: NDArray[np.float32], counts: NDArray[np.int64], least_light: float, most_tint: float, most_pink: float
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Those of the colours (N, 3), and their counts (N,), that are bright, and neither too tinted nor too pink."""
    bright = colours.mean(axis=1) >= least_light
    colours, counts = colours[bright], counts[bright]
    high, low = brightest(colours), _darkest(colours)
    pink = (np.minimum(colours[:, 0], colours[:, 2]) - colours[:, 1]) / high
    chosen = ((high - low) / high <= most_tint) & (pink <= most_pink)
    return colours[chosen], counts[chosen]


def _frequent_colours(
    rest: NDArray[np.float32], counts: NDArray[np.int64], least: float, most_kinds: int
) -> list[Colour]:
    """The most frequent of the colours (N, 3) of `counts` (N,) pixels: at most `most_kinds`, each with at least `least`
    pixels.
    """
    colours: list[Colour] = []
    while counts.sum() >= least and len(colours) < most_kinds:
        bins = (rest // BIN).astype(np.int64)
        numbers, place = np.unique((bins[:, 0] * 32 + bins[:, 1]) * 32 + bins[:, 2], return_inverse=True)
        top = int(numbers[np.bincount(place, counts).argmax()])
        middle = np.array([top // 1024, top // 32 % 32, top % 32], np.float32) * BIN + BIN / 2
        for _ in range(3):  # move from the bin's centre to the median of the colours near it
            near = (np.abs(rest - middle) <= REACH).all(axis=1)
            if not near.any():
                return colours
            middle = _median_colour(rest[near], counts[near])
        near = (np.abs(rest - middle) <= REACH).all(axis=1)
        if counts[near].sum() < least:
            break
        red, green, blue = middle.tolist()
        colours.append((red, green, blue))
        rest, counts = rest[~near], counts[~near]
    return colours


def _median_colour(colours: NDArray[np.float32], counts: NDArray[np.int64]) -> NDArray[np.float32]:
    """The median (3,) of each channel of the colours (N, 3), of which there are `counts` (N,)."""
    number = int(counts.sum())
    middle = []
    for channel in range(3):
        order = colours[:, channel].argsort(kind="stable")
        positions = np.searchsorted(counts[order].cumsum(), [(number - 1) // 2, number // 2], side="right")
        middle.append(colours[order[positions], channel].mean())
    return np.array(middle, np.float32)


def _is_smooth(values: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Pixels of (H, W, 3) whose surrounding square hardly varies in any channel: bool (H, W)."""
    return np.asarray(_variance(values) <= MAX_DEVIATION**2)


def _variance(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """The largest variance of a channel of (H, W, 3) in the square around each pixel: float32 (H, W)."""
    size = (WINDOW_PX, WINDOW_PX, 1)
    mean = ndimage.uniform_filter(values, size, mode="nearest")
    square = ndimage.uniform_filter(values**2, size, mode="nearest")
    return np.asarray(brightest(np.maximum(square - mean**2, 0)))


def _is_yellow(colour: Colour, glass: Sequence[Colour]) -> bool:
    """Whether what makes `colour` of the lightest one of `glass`, of white if it is that itself, absorbs blue most."""
    lightest = max((each for each in glass if sum(each) > sum(colour)), key=sum, default=(255.0, 255.0, 255.0))
    red, green, blue = (level / below for level, below in zip(colour, lightest, strict=True))
    return blue < min(red, green)


def new_tints(colours: Sequence[Colour], glass: Sequence[Colour]) -> list[Colour]:
    """Those of `colours` that are tinted, so that saturation is measured against them, and are none of `glass`."""
    return [colour for colour in colours if _tint(colour) > NEUTRAL and not is_among(colour, glass)]


def is_among(colour: Colour, glass: Sequence[Colour]) -> bool:
    """Whether a colour counts as one of `glass`."""
    return any(bool(np.abs(np.subtract(colour, kind)).max() <= REACH) for kind in glass)


def _tint(colour: Colour) -> float:
    """The saturation (0..1) of a colour."""
    return (max(colour) - min(colour)) / max(colour)


def saturation_against_glass(image: NDArray[np.uint8], glass: list[Colour]) -> NDArray[np.float32]:
    """Saturation (0..1) that an RGB image (H, W, 3) would have on white glass: float32 (H, W).

    With several glass colours, each pixel gets its lowest saturation. White glass, or none, changes nothing.
    """
    tinted = [colour for colour in glass if _tint(colour) > NEUTRAL]
    kinds = [np.array(colour, np.float32) / max(colour) for colour in tinted]
    if len(tinted) < len(glass) or not glass:
        kinds.insert(0, np.ones(3, np.float32))
    lowest = np.full(image.shape[:2], np.inf, np.float32)
    for rows in strips(*image.shape[:2]):
        for kind in kinds:
            untinted = image[rows] / kind
            high = brightest(untinted)
            saturation = (high - _darkest(untinted)) / np.maximum(high, 1)
            np.minimum(lowest[rows], saturation, out=lowest[rows])
    return lowest
