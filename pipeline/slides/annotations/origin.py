"""Where the coordinates of a file of annotations count from: the slide's corner, or that of its scanned area.

Formats such as MIRAX and SCN say which part of the slide was scanned (OpenSlide's bounds); BIF does not. QuPath opens
that part alone, unless a person says `--no-crop`, and counts from its corner; ASAP and TRIDENT count from the slide's.
Files do not say which. Source: QuPath's OpenslideImageServer, ASAP's OpenSlideImage. Pure.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from pipeline.slides.annotations.drawn import DrawnRegion, Notes, ScannedPart


def scanned_part(scanned_l0_px: tuple[int, int, int, int] | None, size_l0_px: tuple[int, int]) -> ScannedPart | None:
    """The scanned area (x, y, width, height) of a slide; `None` if all of it was scanned, or nothing says what."""
    if scanned_l0_px is None or scanned_l0_px == (0, 0, *size_l0_px):
        return None
    return ScannedPart(scanned_l0_px[:2], scanned_l0_px[2:])


def moved_to_slide(regions: Sequence[DrawnRegion], part: ScannedPart, notes: Notes | None) -> list[DrawnRegion]:
    """The regions in pixels from the slide's corner; noted if they counted from another."""
    if not part.counts_from_it or not any(part.corner_l0_px):
        return list(regions)
    if notes is not None and regions:
        x, y = part.corner_l0_px
        notes.say(
            f"its coordinates count from the corner of the scanned area, ({x:,}, {y:,}), as QuPath's do; give "
            "--annotation-origin slide if they do not"
        )
    corner = np.array(part.corner_l0_px, np.float64)
    return [replace(region, rings=[ring[:, :2] + corner for ring in region.rings]) for region in regions]
