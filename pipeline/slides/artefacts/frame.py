"""What lies around tissue: the dark frame of a scan, and stain on the glass. Pure.

A scanner fills what it did not see, or saw beyond the coverslip, with black or dark grey. It is told from tissue by
touching the picture's edge, by being far darker than the slide's own light, and by having no colour. Stain on the glass
is told by having no texture.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from pipeline.slides.artefacts.density import closed, grown, opened, steps
from pipeline.slides.glass import WINDOW_PX, strips

FRAME_LIGHT = 0.4
"""A frame is darker than this share of the slide's light, the brightest twentieth of its pixels. Our choice: frames are
black to dark grey, 0 to 0.3; the darkest tissue at 8 um/px has about 0.4.
"""
FRAME_COLOUR = 24
"""Largest difference of the channels (0..255) of a frame. Our choice: JPEG leaves up to 15 in dark grey, and DAB, the
darkest stain, has 30 and more.
"""
RIM_UM = 24.0
"""Width of the rim around a frame that goes with it. Our choice: three pixels of the mask, in which averaging and JPEG
mix the frame with what lies beside it.
"""
HAZE_DEVIATION = 0.008
"""Largest standard deviation of the mean of the channels in a square of 40 um of haze, as a share of the slide's light.
Our choice: stain on glass has below 0.006, pale tissue 0.012 and more on slides that we inspected.
"""
HAZE_SATURATION = 0.2
"""Largest saturation (0..1) of haze. Our choice: stronger areas without texture are seen as tissue, of which plain
pools are a part, or as fills of one colour.
"""
HAZE_UM = 80.0
"""Width of a square that an area of haze holds. Our choice: ten pixels, twice that of the windows."""
HAZE_REACH_UM = 160.0
"""How far from such an area smooth pixels beside it are haze as well. Our choice: twice its width, for between it and
tissue no square fits that sees haze alone.
"""
FINE_PX, BESIDE_PX = 3, 9
"""Widths of two windows: in the one such a pixel is smooth; in the other it is as light as all smooth pixels are, which
leaves out the dark tissue beside it, and tells haze from pale tissue that is out of focus.
"""
BESIDE_DEVIATION = 0.0064
"""As `HAZE_DEVIATION`, of the latter. Our choice: just above what stain on glass has."""


def find_border(
    image: NDArray[np.uint8], light: NDArray[np.uint8], pixel_um: float, known: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Find the frame of a scan in an RGB image (H, W, 3), of which `light` (H, W) is the brightest channel, among the
    pixels `known` (H, W): bool (H, W).
    """
    dark = black_areas(image, light, known)
    if not dark.any():
        return dark
    edge = np.zeros_like(dark)
    edge[[0, -1]] = edge[:, [0, -1]] = True
    frame = ndimage.binary_propagation(edge & dark, mask=dark)
    if not frame.any():
        return np.asarray(frame)
    rim = steps(RIM_UM, pixel_um)
    return grown(closed(frame, rim), rim) & known  # noise gives single pixels of a frame a colour


def black_areas(image: NDArray[np.uint8], light: NDArray[np.uint8], known: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """What is dark and without colour, as frames are, whether it touches the edge or not: bool (H, W)."""
    dark = known & (light < FRAME_LIGHT * usual_light(light, known))
    dark[dark] = np.ptp(image[dark], axis=1) <= FRAME_COLOUR
    return dark


def find_haze(
    image: NDArray[np.uint8],
    light: NDArray[np.uint8],
    pixel_um: float,
    tissue: NDArray[np.bool_],
    saturation: NDArray[np.float32],
) -> NDArray[np.bool_]:
    """Find areas without texture in what counts as `tissue` (H, W) in an image (H, W, 3), of which `light` (H, W) is
    the brightest channel, with the smooth pixels beside them: bool (H, W).

    `saturation` (H, W) is that against the glass, as in `glass.saturation_against_glass`.
    """
    pale = tissue & (saturation <= HAZE_SATURATION)
    if not pale.any():
        return pale
    usual = usual_light(light)
    limit = HAZE_DEVIATION * usual
    core = opened(pale & _smooth(image, pale, WINDOW_PX, limit), steps(HAZE_UM / 2, pixel_um))
    if not core.any():
        return core
    haze = grown(core, WINDOW_PX // 2) & pale  # windows at its rim see beyond it
    fine = pale & _smooth(image, pale, FINE_PX, limit)
    beside = fine & _smooth(image, fine, BESIDE_PX, BESIDE_DEVIATION * usual, among=fine)
    reach = ndimage.binary_dilation(haze, iterations=steps(HAZE_REACH_UM, pixel_um), mask=beside | haze)
    return closed(reach, 1) & pale


def _smooth(
    image: NDArray[np.uint8],
    where: NDArray[np.bool_],
    window_px: int,
    limit: float,
    among: NDArray[np.bool_] | None = None,
) -> NDArray[np.bool_]:
    """Pixels of an image (H, W, 3) within a window around which light deviates by at most `limit`, `among` some pixels
    (H, W) or all: bool (H, W). Columns and rows without any of `where` (H, W) are not looked at.
    """
    smooth, margin = np.zeros_like(where), window_px // 2
    for rows in strips(*where.shape):
        inside = np.flatnonzero(where[rows].any(axis=0))
        if len(inside):
            first, last = max(rows.start - margin, 0), min(rows.stop + margin, len(where))
            left, right = max(inside[0] - margin, 0), inside[-1] + margin + 1
            values = image[first:last, left:right].sum(axis=2, dtype=np.float32) / 3
            spread = _deviation(values, window_px, None if among is None else among[first:last, left:right])
            smooth[rows, left:right] = spread[rows.start - first : rows.stop - first] <= limit
    return smooth


def usual_light(light: NDArray[np.uint8], known: NDArray[np.bool_] | None = None) -> float:
    """The light of a slide, of the brightest channel `light` (H, W) of its known pixels: 19 of 20 are no brighter."""
    mask = None if known is None else Image.fromarray(known.view(np.uint8) * np.uint8(255))
    counts = np.cumsum(Image.fromarray(light).histogram(mask)) if light.size else np.zeros(256)
    return float(np.searchsorted(counts, 0.95 * counts[-1])) if counts[-1] else 0.0


def _deviation(
    values: NDArray[np.float32], window_px: int, among: NDArray[np.bool_] | None = None
) -> NDArray[np.float32]:
    """The standard deviation of (H, W) in a square around each pixel, of all of it or `among` some pixels: float32 (H,
    W), 0 where there are none.
    """
    if among is None:
        mean = ndimage.uniform_filter(values, window_px, mode="nearest")
        square = ndimage.uniform_filter(values**2, window_px, mode="nearest")
    else:
        share = np.maximum(ndimage.uniform_filter(among.astype(np.float32), window_px, mode="nearest"), 1e-3)
        kept = np.where(among, values, np.float32(0))
        mean = ndimage.uniform_filter(kept, window_px, mode="nearest") / share
        square = ndimage.uniform_filter(kept**2, window_px, mode="nearest") / share
    return np.asarray(np.sqrt(np.maximum(square - mean**2, 0)))
