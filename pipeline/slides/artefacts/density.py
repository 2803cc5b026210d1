"""Optical density of a thumbnail, at the coarser grid on which the rules for artefacts look at it. Pure.

Stains and inks multiply the light that passes (Beer and Lambert), so their densities add. Ratios of a pixel's densities
in red, green and blue are its colour whatever the amount of stain: pens differ from stains in them.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from pipeline.slides.glass import Colour

COARSE_UM = 16.0
"""um per pixel of the coarser grid. Our choice: a stroke of a pen is 20 pixels wide there, a narrow fold two."""
WHITE: Colour = (243.0, 243.0, 243.0)
"""Glass of a slide on which none was found. Our choice: that of most scanners that we inspected."""


@dataclass(frozen=True)
class Coarse:
    """A thumbnail averaged over squares of whole pixels. What no square covers at its right and lower edge is left out.

    Attributes:
        image: uint8 (h, w, 3).
        factor: pixels of the thumbnail along a square's side.
        pixel_um: side of a square.
    """

    image: NDArray[np.uint8]
    factor: int
    pixel_um: float

    def all_of(self, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Squares (h, w) of which all pixels are in a mask (H, W) of the thumbnail."""
        height, width = self.image.shape[:2]
        inside = mask[: height * self.factor, : width * self.factor]
        result = inside[:: self.factor, :: self.factor].copy()
        for place in range(1, self.factor**2):
            result &= inside[place // self.factor :: self.factor, place % self.factor :: self.factor]
        return result

    def enlarged(self, mask: NDArray[np.bool_], shape: tuple[int, ...]) -> NDArray[np.bool_]:
        """A mask (h, w) of the squares as one of the thumbnail's pixels, of this shape; edges that no square covers go
        with their neighbours.
        """
        whole = mask.repeat(self.factor, axis=0).repeat(self.factor, axis=1) if self.factor > 1 else mask
        missing = shape[0] - whole.shape[0], shape[1] - whole.shape[1]
        return np.pad(whole, ((0, missing[0]), (0, missing[1])), mode="edge") if any(missing) else whole


def coarse(image: NDArray[np.uint8], pixel_um: float, wanted_um: float = COARSE_UM) -> Coarse:
    """Average an RGB image (H, W, 3) over squares of whole pixels, of the side that is nearest to `wanted_um`: one
    rounded down would be half as wide at 8.08 um/px, a usual scanner's, as at 8.
    """
    factor = max(1, min(round(wanted_um / pixel_um), *image.shape[:2]))
    if factor == 1:
        return Coarse(image, 1, pixel_um)
    rows, columns = image.shape[0] // factor * factor, image.shape[1] // factor * factor
    small = Image.fromarray(np.ascontiguousarray(image[:rows, :columns])).reduce(factor)
    return Coarse(np.asarray(small), factor, pixel_um * factor)


def density(pixels: NDArray[np.uint8], glass: list[Colour]) -> NDArray[np.float32]:
    """Natural optical density of each channel of pixels (..., 3) against the most frequent `glass`, at least 0:
    float32, the same shape. 0 and 255 are taken as half a grey level more and less.
    """
    levels = np.clip(np.arange(256, dtype=np.float32), 0.5, None)
    result = np.empty(pixels.shape, np.float32)
    for channel, light in enumerate(glass[0] if glass else WHITE):
        result[..., channel] = np.maximum(np.log(max(light, 1.0) / levels), 0)[pixels[..., channel]]
    return result


def grown(mask: NDArray[np.bool_], pixels: int) -> NDArray[np.bool_]:
    """A mask (H, W) with every pixel that is at most so many rows and so many columns from it: squares, so that a mask
    turned by 90 degrees gives the same, turned.
    """
    result, covered = mask.copy(), 0
    while covered < pixels:
        step = min(covered + 1, pixels - covered)  # a longer one could leave out what lies between
        before = result.copy()
        result[step:] |= before[:-step]
        result[:-step] |= before[step:]
        before = result.copy()
        result[:, step:] |= before[:, :-step]
        result[:, :-step] |= before[:, step:]
        covered += step
    return result


def closed(mask: NDArray[np.bool_], pixels: int) -> NDArray[np.bool_]:
    """A mask (H, W) with gaps of at most `2 * pixels` closed."""
    return ~grown(~grown(mask, pixels), pixels) | mask


def opened(mask: NDArray[np.bool_], pixels: int) -> NDArray[np.bool_]:
    """A mask (H, W) without what is at most `2 * pixels` wide."""
    return grown(~grown(~mask, pixels), pixels) & mask


def shown(found: NDArray[np.bool_], image: NDArray[np.uint8], known: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """What is found (H, W) without pixels of the image (H, W, 3) that are not `known` and altogether black: those could
    not be read. Other black ones are ink or a dark edge.
    """
    places = np.nonzero(found & ~known)
    if len(places[0]):
        found = found.copy()
        found[places] = image[places].any(axis=1)
    return found


def steps(length_um: float, pixel_um: float) -> int:
    """A length in whole pixels, at least one."""
    return max(1, round(length_um / pixel_um))


def touching(start: NDArray[np.bool_], follow: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The connected parts of `follow` (H, W) that hold a pixel of `start` (H, W); corners connect."""
    labels, number = ndimage.label(follow, np.ones((3, 3)))
    wanted = np.zeros(number + 1, bool)
    wanted[labels[start]] = True
    wanted[0] = False
    return np.asarray(wanted[labels])


def large_parts(mask: NDArray[np.bool_], least_um2: float, pixel_um: float) -> NDArray[np.bool_]:
    """The connected parts of a mask (H, W) that cover at least an area; corners connect."""
    if not mask.any():
        return mask
    labels, _ = ndimage.label(mask, np.ones((3, 3)))
    large = np.bincount(labels.ravel()) * pixel_um**2 >= least_um2
    large[0] = False
    return np.asarray(large[labels])
