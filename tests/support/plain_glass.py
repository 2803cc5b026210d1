"""Glass looked for pixel by pixel and all at once, as it was before colours were counted: what tests compare with."""

import numpy as np
from scipy import ndimage

from pipeline.slides.glass import (
    BACKGROUND_LIGHT,
    BACKGROUND_PINK,
    BACKGROUND_SHARE,
    BACKGROUND_TINT,
    BIN,
    COARSE_PX,
    MAX_DEVIATION,
    MAX_PINK,
    MAX_TINT,
    MIN_LIGHT,
    MIN_SHARE,
    MOST_KINDS,
    REACH,
    Colour,
)


def plain_candidates(values: np.ndarray, known: np.ndarray, light: float, tint: float, most_pink: float) -> np.ndarray:
    mean = ndimage.uniform_filter(values, (5, 5, 1), mode="nearest")
    square = ndimage.uniform_filter(values**2, (5, 5, 1), mode="nearest")
    smooth = np.maximum(square - mean**2, 0).max(axis=2) <= MAX_DEVIATION**2
    rest = values[known & smooth & (values.mean(axis=2) >= light)]
    high, low = rest.max(axis=1), rest.min(axis=1)
    pink = (np.minimum(rest[:, 0], rest[:, 2]) - rest[:, 1]) / high
    return rest[((high - low) / high <= tint) & (pink <= most_pink)]


def plain_colours(rest: np.ndarray, least: float) -> list[Colour]:
    colours: list[Colour] = []
    while len(rest) >= least and len(colours) < MOST_KINDS:
        bins = (rest // BIN).astype(np.int64)
        numbers, counts = np.unique((bins[:, 0] * 32 + bins[:, 1]) * 32 + bins[:, 2], return_counts=True)
        top = int(numbers[counts.argmax()])
        middle = np.array([top // 1024, top // 32 % 32, top % 32], np.float32) * BIN + BIN / 2
        for _ in range(3):
            near = (np.abs(rest - middle) <= REACH).all(axis=1)
            middle = np.median(rest[near], axis=0)
        near = (np.abs(rest - middle) <= REACH).all(axis=1)
        if near.sum() < least:
            break
        red, green, blue = middle.tolist()
        colours.append((red, green, blue))
        rest = rest[~near]
    return colours


def plain_glass(image: np.ndarray, known: np.ndarray) -> list[Colour]:
    candidates = plain_candidates(image.astype(np.float32), known, MIN_LIGHT, MAX_TINT, MAX_PINK)
    return plain_colours(candidates, max(MIN_SHARE * float(known.sum()), 1.0))


def plain_background(image: np.ndarray, known: np.ndarray, glass: list[Colour]) -> Colour | None:
    rows, columns = image.shape[0] // COARSE_PX, image.shape[1] // COARSE_PX
    inside = slice(0, rows * COARSE_PX), slice(0, columns * COARSE_PX)
    means = image[inside].reshape(rows, COARSE_PX, columns, COARSE_PX, 3).mean(axis=(1, 3), dtype=np.float32)
    whole = known[inside].reshape(rows, COARSE_PX, columns, COARSE_PX).all(axis=(1, 3))
    most_pink = MAX_PINK if glass else BACKGROUND_PINK
    candidates = plain_candidates(means, whole, BACKGROUND_LIGHT, BACKGROUND_TINT, most_pink)
    for colour in plain_colours(candidates, max(BACKGROUND_SHARE * float(whole.sum()), 1.0)):
        if not any(np.abs(np.subtract(colour, kind)).max() <= REACH for kind in glass):
            return colour
    return None


def plain_saturation(image: np.ndarray, glass: list[Colour]) -> np.ndarray:
    tinted = [colour for colour in glass if (max(colour) - min(colour)) / max(colour) > 0.03]
    kinds = [np.array(colour, np.float32) / max(colour) for colour in tinted]
    if len(tinted) < len(glass) or not glass:
        kinds.insert(0, np.ones(3, np.float32))
    untinted = [image / kind for kind in kinds]
    return np.min([np.ptp(each, axis=2) / np.maximum(each.max(axis=2), 1) for each in untinted], axis=0)
