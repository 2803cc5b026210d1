"""A slide's reference: measured once, by whichever threads, to the same value; and hashes of pixels."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from support.planted import Rgb, blurred, tissue_patches

from pipeline.base.errors import PatchError
from pipeline.slides.artefacts.patch_checks import PatchFault
from pipeline.slides.artefacts.patch_qc import REFERENCE_PATCHES, PatchChecks

PATCH_PX = 64
COORDS = np.array([(x * 64, y * 64) for y in range(10) for x in range(10)], np.int64)


@pytest.fixture(scope="module")
def patches() -> list[Rgb]:
    return tissue_patches(PATCH_PX)


def test_threads_measure_the_reference_together_and_once(patches: list[Rgb]) -> None:
    reads: list[tuple[int, int]] = []
    lock = threading.Lock()

    def read(x: int, y: int) -> Rgb:
        with lock:
            reads.append((x, y))
        return patches[(x // 64 + y // 64) % len(patches)]

    soft = blurred(patches[0], 1.5)

    def find(checks: PatchChecks) -> PatchFault | None:
        return checks.find("a", COORDS, 0.5, soft, read)

    alone = find(PatchChecks(PATCH_PX))
    assert alone is not None
    assert alone.reason == "out_of_focus"
    assert len(reads) == len(set(reads)) == REFERENCE_PATCHES
    chosen = set(reads)
    reads.clear()
    shared = PatchChecks(PATCH_PX)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: find(shared), range(32)))
    assert set(found) == {alone}
    assert len(reads) == REFERENCE_PATCHES
    assert set(reads) == chosen


@pytest.mark.slow
def test_a_store_begun_by_earlier_rules_goes_on_by_them(patches: list[Rgb]) -> None:
    """Version 1 did not look at neighbouring sixteenths."""
    found: dict[int, set[str]] = {1: set(), 2: set()}
    for patch in patches:
        part = patch.copy()
        part[14:34, 14:50] = blurred(part, 2)[14:34, 14:50]
        for rules, reasons in found.items():
            fault = PatchChecks(PATCH_PX, rules).find("a", COORDS, 0.5, part, lambda x, y: patches[(x + y) // 64 % 8])
            reasons.add(fault.reason if fault else "good")
    assert "good" in found[1]
    assert found[2] == {"out_of_focus"}


def test_a_store_begun_when_glass_counted_goes_on_so() -> None:
    """Version 2 takes the edge of a section of fine grains for soft, by a reference in which glass counts, too."""
    level = np.full((224, 224, 1), 242.0)
    level[:, :112] = 140 + 22 * np.random.default_rng(0).standard_normal((224, 112, 1))
    edge = (gaussian_filter(level, (0.8, 0.8, 0)) * (1, 0.8, 0.95) + (0, 45, 10)).round().clip(0, 255).astype(np.uint8)
    tissue = np.concatenate([edge[:, :110], edge[:, 109::-1], edge[:, :4]], axis=1)
    found = {rules: PatchChecks(224, rules).find("a", COORDS, 0.5, edge, lambda x, y: tissue) for rules in (2, 3)}
    assert found[3] is None
    assert found[2] is not None
    assert found[2].reason == "out_of_focus"


def test_unreadable_patches_of_the_reference_are_left_out(patches: list[Rgb]) -> None:
    def read(x: int, y: int) -> Rgb:
        if x >= 64:
            raise PatchError("damaged")
        return patches[y // 64]

    assert PatchChecks(PATCH_PX).find("a", COORDS, 0.5, patches[0], read) is None


def test_an_error_reaches_every_thread(patches: list[Rgb]) -> None:
    def read(x: int, y: int) -> Rgb:
        raise MemoryError

    checks = PatchChecks(PATCH_PX)
    with ThreadPoolExecutor(4) as pool:
        works = [pool.submit(checks.find, "a", COORDS, 0.5, patches[0], read) for _ in range(8)]
    assert all(isinstance(work.exception(), MemoryError) for work in works)


def test_the_patch_is_the_middle_of_a_tile(patches: list[Rgb]) -> None:
    checks = PatchChecks(PATCH_PX)
    tile = np.pad(patches[0], ((16, 16), (16, 16), (0, 0)), constant_values=7)
    assert checks.digest("a", tile) == checks.digest("a", patches[0])


def test_the_rim_may_differ(patches: list[Rgb]) -> None:
    """JPEG mixes the colours of neighbours."""
    changed = patches[0].copy()
    changed[:4] ^= 1
    changed[:, -4:] ^= 1
    assert PatchChecks(PATCH_PX).digest("a", changed) == PatchChecks(PATCH_PX).digest("a", patches[0])


def test_digests_tell_every_pixel_and_slide_apart(patches: list[Rgb]) -> None:
    checks, digests = PatchChecks(PATCH_PX), set()
    for y, x in ((4, 4), (5, 4), (4, 5), (59, 59)):
        changed = patches[0].copy()
        changed[y, x, 1] ^= 1
        digests.add(checks.digest("a", changed))
    digests |= {checks.digest("a", patches[0]), checks.digest("b", patches[0])}
    assert len(digests) == 6
