"""The colour of a slide's glass, and saturation against it: so that tinted glass is no tissue. Pure.

Old mounting media are cream or yellow, some scanners see blue: glass of saturation 0.1 to 0.3, above any fixed
threshold of tissue. Light passes stain and glass one after the other, so dividing by the glass's colour takes the tint
out of both (Beer and Lambert). Glass is told from tissue by being smooth at some micrometres a pixel, bright, and not
pink or purple. Glass that is dark, strongly tinted, lilac or noisy is none by these; it is found as the colour that
covers much of the slide and is smooth at a coarser scale, where tissue varies still and noise is averaged out.
Left out: glass whose tint changes across the slide, and pink glass, which is as pale tissue is.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

WINDOW_PX = 5
"""Side of the square that is to be smooth, pixels of a mask (40 um). Our choice: some cells."""
MAX_DEVIATION = 2.5
"""Largest standard deviation of a channel (0..255) within the square. Our choice: glass has 0 to 1.5 on the slides that
we looked at, tissue 5 to 30.
"""
MIN_LIGHT = 160
"""Least brightness, the mean of the channels (0..255): darker are marks and borders. Our choice."""
MAX_TINT = 0.45
"""Largest saturation (0..1) of glass. Our choice: a strong yellow has 0.35; felt pens are above."""
MAX_PINK = 0.04
"""How far green may lie below both red and blue, of the brightest: haematoxylin and eosin take out green first, so that
what is pinker is tissue. Our choice.
"""
MIN_SHARE = 0.01
"""A colour of glass covers this share of the slide. Our choice: less of it is no fault that anybody sees."""
NEUTRAL = 0.03
"""Glass of less saturation counts as white, so that masks of usual slides do not depend on it. Our choice: white glass
lies below on the slides that we looked at.
"""
BIN = 8
"""Width of a bin of the histogram of colours, grey levels."""
REACH = 12
"""Colours this near to the middle of a kind of glass, in every channel, are of it, grey levels."""
MOST_KINDS = 3
"""Colours of glass: that of the slide, of its label or of what was never scanned. Our choice."""
COARSE_PX = 5
"""Side of the squares whose means the background is looked for in, pixels of a mask (40 um). Our choice: noise of 10
grey levels becomes 2, under `MAX_DEVIATION`, which is then measured over 200 um.
"""
BACKGROUND_SHARE = 0.1
"""A background covers this share of the slide. Our choice: no mark of the slides that we looked at does, nor tissue."""
BACKGROUND_LIGHT = 100
"""Least brightness of a background, the mean of the channels (0..255). Our choice: grey and amber glass has 150."""
BACKGROUND_TINT = 0.7
"""Largest saturation of a background (0..1). Our choice: amber has 0.55; beyond, noise grows as it is divided."""
BACKGROUND_PINK = 0.08
"""How far green may lie below red and blue on a slide without other glass. Our choice: lilac has 0.05, tissue all over
more than 0.1.
"""

Colour = tuple[float, float, float]


def find_glass(image: NDArray[np.uint8], known: NDArray[np.bool_]) -> list[Colour]:
    """The colours of glass in an RGB image (H, W, 3), the most frequent first, looked for where `known` (H, W).

    Empty where there is none, as on a slide that is tissue all over.
    """
    values = image.astype(np.float32)
    candidates = _candidates(values, known, MIN_LIGHT, MAX_TINT, MAX_PINK)
    least = max(MIN_SHARE * float(known.sum()), 1.0)
    return _frequent_colours(candidates, least, MOST_KINDS)


def find_background(image: NDArray[np.uint8], known: NDArray[np.bool_], glass: list[Colour]) -> Colour | None:
    """The colour of glass that covers much of an RGB image (H, W, 3) but is not among `glass`, the kinds that
    `find_glass` found: dark, strongly tinted, lilac or noisy. None where there is none.
    """
    rows, columns = image.shape[0] // COARSE_PX, image.shape[1] // COARSE_PX
    if rows == 0 or columns == 0:
        return None
    squares = (rows, COARSE_PX, columns, COARSE_PX)
    inside = slice(0, rows * COARSE_PX), slice(0, columns * COARSE_PX)
    means = image[inside].reshape(*squares, 3).mean(axis=(1, 3), dtype=np.float32)
    whole = np.asarray(known[inside].reshape(squares).all(axis=(1, 3)))
    most_pink = MAX_PINK if glass else BACKGROUND_PINK
    candidates = _candidates(means, whole, BACKGROUND_LIGHT, BACKGROUND_TINT, most_pink)
    for colour in _frequent_colours(candidates, max(BACKGROUND_SHARE * float(whole.sum()), 1.0), MOST_KINDS):
        if not any(np.abs(np.subtract(colour, kind)).max() <= REACH for kind in glass):
            return colour
    return None


def _candidates(
    values: NDArray[np.float32], known: NDArray[np.bool_], least_light: float, most_tint: float, most_pink: float
) -> NDArray[np.float32]:
    """Colours (N, 3) of smooth, bright pixels of (H, W, 3), within `known`, that are neither too tinted nor pink."""
    rest = values[known & _is_smooth(values) & (values.mean(axis=2) >= least_light)]
    high, low = rest.max(axis=1), rest.min(axis=1)
    pink = (np.minimum(rest[:, 0], rest[:, 2]) - rest[:, 1]) / high
    return np.asarray(rest[((high - low) / high <= most_tint) & (pink <= most_pink)])


def _frequent_colours(rest: NDArray[np.float32], least: float, most_kinds: int) -> list[Colour]:
    """The most frequent of colours (N, 3), each of at least `least` pixels, at most `most_kinds`."""
    found: list[Colour] = []
    while len(rest) >= least and len(found) < most_kinds:
        bins = (rest // BIN).astype(np.int64)
        numbers, counts = np.unique((bins[:, 0] * 32 + bins[:, 1]) * 32 + bins[:, 2], return_counts=True)
        top = int(numbers[counts.argmax()])
        middle = np.array([top // 1024, top // 32 % 32, top % 32], np.float32) * BIN + BIN / 2
        for _ in range(3):  # a colour at the edge of a bin moves to the middle of its kind
            near = (np.abs(rest - middle) <= REACH).all(axis=1)
            middle = np.median(rest[near], axis=0)
        near = (np.abs(rest - middle) <= REACH).all(axis=1)
        if near.sum() < least:
            break
        red, green, blue = middle.tolist()
        found.append((red, green, blue))
        rest = rest[~near]
    return found


def _is_smooth(values: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Where the square around a pixel of (H, W, 3) hardly varies in any channel: bool (H, W)."""
    size = (WINDOW_PX, WINDOW_PX, 1)
    mean = ndimage.uniform_filter(values, size, mode="nearest")
    square = ndimage.uniform_filter(values**2, size, mode="nearest")
    variance = np.maximum(square - mean**2, 0).max(axis=2)
    return np.asarray(variance <= MAX_DEVIATION**2)


def saturation_against_glass(image: NDArray[np.uint8], glass: list[Colour]) -> NDArray[np.float32]:
    """Saturation (0..1) of an RGB image (H, W, 3) as it were on white glass: float32 (H, W).

    Of several kinds of glass, the one against which a pixel has least counts. White glass, or none, changes nothing.
    """
    tinted = [colour for colour in glass if (max(colour) - min(colour)) / max(colour) > NEUTRAL]
    kinds = [np.array(colour, np.float32) / max(colour) for colour in tinted]
    if len(tinted) < len(glass) or not glass:
        kinds.insert(0, np.ones(3, np.float32))
    found = None
    for kind in kinds:
        seen = image / kind
        high, low = seen.max(axis=2), seen.min(axis=2)
        saturation = (high - low) / np.maximum(high, 1)
        found = saturation if found is None else np.minimum(found, saturation)
    assert found is not None
    return np.asarray(found, np.float32)
