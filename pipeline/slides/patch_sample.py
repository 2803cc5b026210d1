"""Estimate the bytes of a store's pixels: read and encode a few patches of each slide before using any accelerator.

The encoded size of a patch varies threefold between glass and crowded nuclei, so one patch per slide says little about
a small cohort. Left out: the embeddings, whose size is known.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.base.console import counted
from pipeline.base.errors import PatchError
from pipeline.base.images import encode_image
from pipeline.slides.geometry import PILLOW, PatchGeometry
from pipeline.slides.reader import Slide

WANTED = 200
"""Patches to measure in a cohort. Our choice: sizes vary by about half their mean, so the mean is known to 4 %."""
MOST_OF_A_SLIDE = 24
"""Our choice: half a second of work."""
PLAIN_RANGE = 2
"""Largest range of a channel (0..255) in a patch of one colour: JPEG's rounding leaves that much."""
JPEG_SHARE = 0.4
"""Size of JPEG relative to lossless, for audits of versions that did not measure it; see `base.images.JPEG_QUALITY`."""


@dataclass(frozen=True)
class PatchSample:
    """Measurements of a slide's sampled patches.

    Attributes:
        measured: number of patches that could be read.
        plain: number of these that are of one colour.
        pixel_bytes, jpeg_bytes: mean bytes as lossless JPEG XL, and as JPEG; `None` if no patch could be read.
        seconds: of one thread, to read these patches and encode them as JPEG XL; no column of the audit, which does not
            depend on the clock.
        failed: number of patches that could not be read, beside those that were measured.
        reason: why the first of them could not be read.
    """

    measured: int
    plain: int
    pixel_bytes: int | None
    jpeg_bytes: int | None
    seconds: float = 0.0
    failed: int = 0
    reason: str = ""

    def warnings(self) -> list[str]:
        """What a plan's audit warns of: patches that could not be read, and patches of one colour."""
        words, looked_at = [], self.measured + self.failed
        if self.failed and not self.measured:
            none = f"none of the {looked_at:,} patches" if looked_at > 1 else "the one patch"
            words.append(f"{none} looked at could {'' if looked_at > 1 else 'not '}be read: {self.reason}")
        elif self.failed:
            words.append(f"{self.failed:,} of {looked_at:,} patches looked at could not be read: {self.reason}")
        if self.plain:
            words.append(f"{self.plain} of {counted(self.measured, 'patch', 'patches')} looked at are of one colour")
        return words

    def audit_facts(self) -> dict[str, Any]:
        """The sample's columns of a plan's audit (`cohort.audit.AuditRow`)."""
        return {
            "pixel_bytes": self.pixel_bytes,
            "jpeg_bytes": self.jpeg_bytes,
            "patches_measured": self.measured,
            "plain_measured": self.plain,
        }


class Measured(Protocol):
    """The columns of an audit row that the estimate needs."""

    @property
    def patches_taken(self) -> int: ...
    @property
    def pixel_bytes(self) -> int | None: ...
    @property
    def jpeg_bytes(self) -> int | None: ...


def patches_to_measure(num_slides: int) -> int:
    """How many patches to measure of each slide."""
    return max(1, min(MOST_OF_A_SLIDE, math.ceil(WANTED / max(num_slides, 1))))


def measure_patches(slide: Slide, coords_l0_px: NDArray[np.int64], geometry: PatchGeometry, count: int) -> PatchSample:
    """Read and encode `count` of the slide's patches (N, 2), evenly spaced in their order; counts unreadable ones.

    Pillow reduces them, whoever does it later: sizes are estimates, and a plan is made without loading torch. Before
    the clock starts, the level is compared with OpenSlide's, for that is done once a slide, however many patches are
    read: with one patch a slide it would be most of the time.
    """
    num, geometry = len(coords_l0_px), geometry.reduced_by(PILLOW)
    chosen = sorted({int((i + 0.5) * num / count) for i in range(count)}) if num else []
    lossless, lossy, failures, plain, seconds = [], [], list[str](), 0, 0.0
    if chosen:
        slide.direct.note(geometry.level)
    for x, y in coords_l0_px[chosen].tolist():
        started = time.monotonic()
        try:
            patch = slide.read_patch(x, y, geometry)
        except PatchError as error:
            failures.append(str(error))
            continue
        lossless.append(len(encode_image(patch, "jpegxl")))
        seconds += time.monotonic() - started
        lossy.append(len(encode_image(patch, "jpeg")))
        plain += is_plain(patch)
    mean_lossless, mean_lossy = (round(float(np.mean(sizes))) if sizes else None for sizes in (lossless, lossy))
    reason = failures[0] if failures else ""
    return PatchSample(len(lossless), plain, mean_lossless, mean_lossy, seconds, len(failures), reason)


def is_plain(patch: NDArray[np.uint8]) -> bool:
    """Whether a patch, uint8 (P, P, 3), is of one colour; for most patches the green of a few pixels settles it."""
    few = patch[:: max(len(patch) // 4, 1), :: max(len(patch) // 4, 1), 1].tobytes()
    if max(few) - min(few) > PLAIN_RANGE:
        return False
    return bool((np.ptp(patch.reshape(-1, 3), axis=0) <= PLAIN_RANGE).all())


def expected_pixel_bytes(rows: Sequence[Measured], pixels: str) -> float | None:
    """Bytes of all slides' patches in a format, from each slide's mean size, or the other slides' mean if it has none;
    `None` if nothing was measured.
    """
    means = pixel_bytes_of_each(rows, pixels)
    return (
        None if means is None else float(sum(row.patches_taken * mean for row, mean in zip(rows, means, strict=True)))
    )


def pixel_bytes_of_each(rows: Sequence[Measured], pixels: str) -> list[float] | None:
    """Mean bytes of a patch of each slide in a format, or the other slides' mean if it has none; `None` if nothing was
    measured.
    """
    if pixels == "none":
        return [0.0] * len(rows)
    means = [_mean_bytes(row, pixels) for row in rows]
    known = [mean for mean in means if mean is not None]
    usual = float(np.mean(known)) if known else None
    return None if usual is None else [usual if mean is None else mean for mean in means]


def _mean_bytes(row: Measured, pixels: str) -> float | None:
    """Mean bytes of a slide's patches in a format."""
    if pixels == "jpeg" and row.jpeg_bytes is not None:
        return float(row.jpeg_bytes)
    if row.pixel_bytes is None:
        return None
    return row.pixel_bytes * (JPEG_SHARE if pixels == "jpeg" else 1.0)
