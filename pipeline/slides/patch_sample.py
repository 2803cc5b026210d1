"""A few patches of a slide, read and encoded before any accelerator is touched: how many bytes pixels will take.

The size of a patch varies by a factor of three between glass and crowded nuclei, so one patch a slide says little of a
small cohort. Left out: the embeddings, whose size is known.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import PatchError
from pipeline.base.images import encode_image
from pipeline.slides.geometry import PatchGeometry
from pipeline.slides.reader import Slide

WANTED = 200
"""Patches measured over a cohort. Our choice: sizes spread by about half of their mean, which is then known to 4 %."""
MOST_OF_A_SLIDE = 24
"""Our choice: half a second of work."""
PLAIN_RANGE = 2
"""A patch is of one colour if no channel varies by more (0..255): what the rounding of a JPEG leaves of one colour."""
JPEG_SHARE = 0.4
"""JPEG's share of lossless, for audits of versions that did not measure it; `base.images.JPEG_QUALITY`."""


@dataclass(frozen=True)
class PatchSample:
    """What was found of a slide's sampled patches.

    Attributes:
        measured: how many could be read.
        plain: how many of them are of one colour.
        pixel_bytes, jpeg_bytes: mean bytes as lossless JPEG XL, and as JPEG; `None` where none could be read.
    """

    measured: int
    plain: int
    pixel_bytes: int | None
    jpeg_bytes: int | None

    def audit_facts(self) -> dict[str, Any]:
        """Its columns in a plan's audit (`cohort.plan.AuditRow`)."""
        return {"pixel_bytes": self.pixel_bytes, "jpeg_bytes": self.jpeg_bytes, "patches_measured": self.measured,
                "plain_measured": self.plain}  # fmt: skip


class Measured(Protocol):
    """A slide's row of an audit, as far as the estimate needs it."""

    @property
    def patches_taken(self) -> int: ...
    @property
    def pixel_bytes(self) -> int | None: ...
    @property
    def jpeg_bytes(self) -> int | None: ...


def patches_to_measure(num_slides: int) -> int:
    """How many patches of each of so many slides are measured."""
    return max(1, min(MOST_OF_A_SLIDE, math.ceil(WANTED / max(num_slides, 1))))


def measure_patches(slide: Slide, coords_l0_px: NDArray[np.int64], geometry: PatchGeometry, count: int) -> PatchSample:
    """Read and encode `count` of the slide's (N, 2) patches, evenly spaced in their order; those that cannot be read
    are passed over.
    """
    num = len(coords_l0_px)
    chosen = sorted({int((i + 0.5) * num / count) for i in range(count)}) if num else []
    lossless, lossy, plain = [], [], 0
    for x, y in coords_l0_px[chosen].tolist():
        try:
            patch = slide.read_patch(x, y, geometry)
        except PatchError:
            continue
        lossless.append(len(encode_image(patch, "jpegxl")))
        lossy.append(len(encode_image(patch, "jpeg")))
        plain += is_plain(patch)
    if not lossless:
        return PatchSample(0, 0, None, None)
    return PatchSample(len(lossless), plain, round(float(np.mean(lossless))), round(float(np.mean(lossy))))


def is_plain(patch: NDArray[np.uint8]) -> bool:
    """Whether a patch, uint8 (P, P, 3), is of one colour throughout; a few of its pixels settle it for most."""
    few = patch[:: max(len(patch) // 4, 1), :: max(len(patch) // 4, 1)]
    if (np.ptp(few.reshape(-1, 3), axis=0) > PLAIN_RANGE).any():
        return False
    return bool((np.ptp(patch.reshape(-1, 3), axis=0) <= PLAIN_RANGE).all())


def expected_pixel_bytes(rows: Sequence[Measured], pixels: str) -> float | None:
    """Bytes of all slides' patches in a format, each slide's by its own mean and by that of the others where it has
    none; `None` where nothing was measured.
    """
    if pixels == "none":
        return 0.0
    means = [_mean_bytes(row, pixels) for row in rows]
    known = [mean for mean in means if mean is not None]
    if not known:
        return None
    usual = float(np.mean(known))
    return float(
        sum(row.patches_taken * (usual if mean is None else mean) for row, mean in zip(rows, means, strict=True))
    )


def _mean_bytes(row: Measured, pixels: str) -> float | None:
    """Mean bytes of a slide's patches in a format."""
    if pixels == "jpeg" and row.jpeg_bytes is not None:
        return float(row.jpeg_bytes)
    if row.pixel_bytes is None:
        return None
    return row.pixel_bytes * (JPEG_SHARE if pixels == "jpeg" else 1.0)
