"""Check the patches of slides as they are read, each against its slide's own reference.

The reference is measured once a process, of up to `REFERENCE_PATCHES` of the slide's planned patches, which a hash
chooses. So it depends on slide and plan only, and not on threads, processes, shards, or what a killed run had done. The
threads that wait for it measure it together.

Left out: keeping a reference for other processes. To measure it again costs a few reads.
"""

import hashlib
import threading
import zlib
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import PatchError, SlideError
from pipeline.sampling import sample_patches
from pipeline.slides.artefacts.patch_checks import (
    PATCH_RULES,
    MeasuredPatch,
    PatchFault,
    SlideReference,
    build_reference,
    check_patch,
    measure_patch,
)

REFERENCE_PATCHES = 32
"""Patches of a slide that its reference is of. Our choice: 3 % more reads of 1000 patches, and a median of 32 varies by
a fifth of what single patches do."""
RIM_PX = 4
"""Rim of a patch that may differ where a field is there twice: JPEG's chroma and the reduction mix it with neighbours.
Our choice: three pixels are the reach of Lanczos' filter."""
ReadPatch = Callable[[int, int], NDArray[np.uint8]]
"""Reads the tile or patch at level-0 (x, y): uint8 (T, T, 3); raises `PatchError` or `SlideError`."""


class PatchChecks:
    """Checks the patch of `patch_px` in the middle of what is read, by a version of the rules; safe to use from many
    threads.
    """

    def __init__(self, patch_px: int, rules: int = PATCH_RULES) -> None:
        self._patch_px, self._rules = patch_px, rules
        self._lock = threading.Lock()
        self._shared: dict[str, _SharedReference] = {}

    def find(
        self, slide_id: str, coords_l0_px: NDArray[np.int64], mpp: float, tile: NDArray[np.uint8], read: ReadPatch
    ) -> PatchFault | None:
        """Why a patch of a slide is to be dropped; `None` if it is good.

        Args:
            coords_l0_px: of all planned patches of the slide, (N, 2).
            mpp: um/px of the patch.
            tile: what was read, uint8 (T, T, 3).
            read: reads a patch of this slide, for the reference.
        """
        with self._lock:
            if slide_id not in self._shared:
                chosen = coords_l0_px[sample_patches(slide_id, coords_l0_px, REFERENCE_PATCHES, 0)]
                self._shared[slide_id] = _SharedReference(chosen.tolist(), self._rules)
            shared = self._shared[slide_id]

        def measure(x: int, y: int) -> MeasuredPatch | None:
            try:
                return measure_patch(self._middle(read(x, y)), mpp, rules=self._rules)
            except (PatchError, SlideError):
                return None

        reference = shared.finish(measure)
        return check_patch(self._middle(tile), mpp, reference, rules=self._rules)

    def digest(self, slide_id: str, tile: NDArray[np.uint8]) -> bytes:
        """A hash of a slide's patch without its rim, alike for equal pixels: SHA-256 of every second row, and the CRC
        of the others, which costs half of SHA-256 of all.
        """
        patch = self._middle(tile)[RIM_PX:-RIM_PX, RIM_PX:-RIM_PX]
        of_rows = hashlib.sha256(slide_id.encode() + b"\0")
        of_rows.update(np.ascontiguousarray(patch[::2]).data)
        others = zlib.crc32(np.ascontiguousarray(patch[1::2]).data)
        return of_rows.digest() + others.to_bytes(4, "little")

    def _middle(self, tile: NDArray[np.uint8]) -> NDArray[np.uint8]:
        start = (len(tile) - self._patch_px) // 2
        return tile[start : start + self._patch_px, start : start + self._patch_px]


class _SharedReference:
    """A slide's reference, which the threads that need it measure together."""

    def __init__(self, places: list[list[int]], rules: int) -> None:
        self._places, self._rules = places, rules
        self._next = 0
        self._measured: list[MeasuredPatch | None] = [None] * len(places)
        self._num_left = len(places)
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._reference: SlideReference | None = None
        self._error: BaseException | None = None

    def finish(self, measure: Callable[[int, int], MeasuredPatch | None]) -> SlideReference:
        """Measure what no other thread measures, and wait for the others; raises what one of them has raised."""
        while not self._done.is_set():
            with self._lock:
                place, self._next = self._next, self._next + 1
            if place >= len(self._places):
                break
            self._measure(place, measure)
        self._done.wait()
        if self._error is not None:
            raise self._error
        assert self._reference is not None
        return self._reference

    def _measure(self, place: int, measure: Callable[[int, int], MeasuredPatch | None]) -> None:
        try:
            self._measured[place] = measure(*self._places[place])
        except BaseException as error:
            self._error = error
            self._done.set()
            raise
        with self._lock:
            self._num_left -= 1
            is_last = not self._num_left
        if is_last:
            known = [each for each in self._measured if each is not None]
            self._reference = build_reference(known, rules=self._rules)
            self._measured = []
            self._done.set()
