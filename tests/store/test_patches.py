"""Patches of rows: the planned ones of the slides, the stored ones of a store, and why one cannot be had."""

import os
import shutil
import threading
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import support.slides as sf
from numpy.typing import NDArray
from support.extraction import as_earlier_version, big_slide, plan_cohort, write_cohort
from support.pixels import noise
from support.plans import cohort_of, make_plan
from support.store_writing import EMBEDDINGS, FAILED, PATCH_PX, continued_store, write_pending

from pipeline.base.errors import ConfigError
from pipeline.base.images import ImageFormat, decode_image
from pipeline.cohort.plan import Plan
from pipeline.cohort.views.views import Views
from pipeline.config.staging import StageFolder
from pipeline.slides.reader import Slide
from pipeline.store.format import Status
from pipeline.store.patches import PatchRead, PlannedPatches, StoredPatches, ViewedPatches
from pipeline.store.store import Store


@pytest.mark.slow
def test_a_slide_swapped_after_the_plan_is_not_read(tmp_path: Path) -> None:
    """Two slides of one size, mpp and file length, and no quickhash of either."""
    path, other = big_slide(tmp_path / "a.svs", 1), big_slide(tmp_path / "other.svs", 2)
    assert path.stat().st_size == other.stat().st_size
    plan = make_plan(cohort_of(tmp_path, a=path))
    assert plan.slides[0].quickhash is None
    patch = np.empty((64, 64, 3), np.uint8)
    assert PlannedPatches(plan, None, tell=print).read(0, patch).status is Status.OK
    hash_before = plan.hash
    os.replace(other, path)
    read = PlannedPatches(plan, None, tell=print).read(0, patch)
    assert read.status is Status.NO_SLIDE
    assert "a.svs: not the slide that was planned (its content has changed: sha256: " in read.reason
    assert make_plan(cohort_of(tmp_path, a=path)).hash != hash_before


def test_a_plan_that_knows_little_of_a_slide_says_so(tmp_path: Path) -> None:
    plan = make_plan(cohort_of(tmp_path, a=big_slide(tmp_path / "a.svs", 1)))
    told: list[str] = []
    PlannedPatches(plan, None, tell=told.append)
    assert told == []
    PlannedPatches(as_earlier_version(plan), None, tell=told.append)
    assert [note.partition(",")[0] for note in told] == ["note: of 1 slide the plan holds no hash (a)"]


def test_patches_of_one_colour_are_noted(tmp_path: Path) -> None:
    flat = sf.make_pixels("tissue", 1024, 1024, mpp=0.5)
    flat[:, 512:] = (224, 158, 192)
    path = sf.write_slide(tmp_path / "a.svs", flat, mpp=0.5, downsamples=(1,))
    plan = make_plan(cohort_of(tmp_path, a=path), patches_per_slide=1000, min_tissue=0.0, max_artefact=1.0)
    patches, out = PlannedPatches(plan, None, tell=print), np.empty((64, 64, 3), np.uint8)
    assert patches.plain_note() == ""
    for row in range(plan.num_rows):
        patches.read(row, out)
    assert patches.plain_note().startswith("note: 128 patches are of one colour throughout, in 1 slide (a): ")


@pytest.mark.parametrize("image_format", ["jpeg", "jpegxl", None])
def test_what_is_kept_is_what_the_teacher_sees(cohort: Path, image_format: ImageFormat | None) -> None:
    plan = plan_cohort(cohort, patches_per_slide=2)
    plain, seen = np.empty((2, 64, 64, 3), np.uint8)
    for row in (0, plan.num_rows - 1):
        assert PlannedPatches(plan, None, tell=print).read(row, plain) == PatchRead(Status.OK)
        read = PlannedPatches(plan, image_format, tell=print).read(row, seen)
        assert read.status is Status.OK
        assert np.array_equal(seen, plain) == (image_format != "jpeg")
        if image_format is not None:
            assert read.encoded is not None
            np.testing.assert_array_equal(decode_image(read.encoded, image_format, 64), seen)


@pytest.mark.parametrize("image_format", ["jpeg", None])
def test_rows_read_together_are_those_read_one_by_one(
    cohort: Path, tmp_path: Path, image_format: ImageFormat | None
) -> None:
    """Over several slides, of which one is gone and one damaged, in any order, with rows that were dropped."""
    plan = plan_cohort(shutil.copytree(cohort.parent, tmp_path / "slides") / cohort.name)
    plan.slide_path(plan.slides[1]).unlink()
    damaged = plan.slide_path(plan.slides[2])
    sf.damage_tiles(damaged, [(x, y) for x in range(1, 5) for y in range(1, 4)], out=tmp_path / "bad.svs")
    os.replace(tmp_path / "bad.svs", damaged)
    dropped = {5: PatchRead(Status.EMPTY, reason="dropped before")}
    patches = PlannedPatches(as_earlier_version(plan), image_format, tell=[].append, dropped=dropped)
    rows = [*range(plan.num_rows), *np.random.default_rng(1).permutation(plan.num_rows).tolist()]
    together = np.empty((len(rows), 64, 64, 3), np.uint8)
    results, alone = patches.read_some(rows, together), np.empty((64, 64, 3), np.uint8)
    for row, result, seen in zip(rows, results, together, strict=True):
        assert patches.read(row, alone) == result
        if result.status is Status.OK:
            np.testing.assert_array_equal(seen, alone)
    assert {Status.OK, Status.NO_SLIDE, Status.UNREADABLE, Status.EMPTY} == {result.status for result in results}
    assert patches.read_some([], together[:0]) == []


@pytest.mark.slow
def test_a_torch_that_cannot_reduce_is_told_before_a_row_is_read(cohort: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else each row would fail, and a store of failures be made."""
    torch, pillow = plan_cohort(cohort), plan_cohort(cohort, resampling="lanczos-pillow")
    monkeypatch.setattr(metadata, "version", {"torch": "2.6.0"}.__getitem__)
    PlannedPatches(pillow, None, tell=print)
    with pytest.raises(ConfigError, match=r"torch reduces the patches of this plan: torch 2\.6\.0 cannot"):
        PlannedPatches(torch, None, tell=print)


def opened(patches: PlannedPatches) -> set[str]:
    """Names of the slides that are open, once those that are being opened ahead are."""
    for thread in threading.enumerate():
        if thread.name == "g2l-open":
            thread.join(30)
    return {path.stem for path in patches._pool._slides}


def test_the_next_slide_is_opened_while_one_is_read(
    cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only where rows are read in order; one that does not open fails its own rows alone."""
    monkeypatch.setattr("pipeline.store.patches.ROWS_AHEAD", 1)
    plan = plan_cohort(shutil.copytree(cohort.parent, tmp_path / "slides") / cohort.name)
    assert len(plan.slides) > 2
    plan.slide_path(plan.slides[1]).unlink()
    out = np.empty((64, 64, 3), np.uint8)
    for in_order, expected in ((True, {0, 1}), (False, {0})):
        patches = PlannedPatches(plan, None, tell=print, in_order=in_order)
        assert patches.read(0, out).status is Status.OK
        assert opened(patches) == {plan.slides[i].slide_id for i in expected}
        results = [patches.read(row, out).status for row in range(plan.num_rows)]
        assert set(np.array(results)[plan.slide_of_row() == 1]) == {Status.NO_SLIDE}
        assert set(np.array(results)[plan.slide_of_row() != 1]) == {Status.OK}


@pytest.mark.slow
@pytest.mark.parametrize(("rows_ahead", "expected"), [(512, [4, 5, 6, 8]), (12, [1, 2, 3, 5]), (13, [2, 3, 4, 6])])
def test_so_many_slides_are_opened_ahead_as_the_next_rows_need(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows_ahead: int, expected: list[int]
) -> None:
    """Of nine slides of 12 rows each: the last that is opened, while slides 0, 1, 2 and 4 are read. Slide 3 is passed
    over, as where its shards are finished. Each is opened once.
    """
    monkeypatch.setattr("pipeline.store.patches.ROWS_AHEAD", rows_ahead)
    plan = plan_cohort(write_cohort(tmp_path, 9))
    patches, out = PlannedPatches(plan, None, tell=print, in_order=True), np.empty((64, 64, 3), np.uint8)
    open_slide, opens = patches._pool._open, []

    def counted(path: Path, *more: Any) -> Slide:
        opens.append(path.stem)
        return open_slide(path, *more)

    monkeypatch.setattr(patches._pool, "_open", counted)
    for slide, last in zip((0, 1, 2, 4), expected, strict=True):
        assert patches.read(12 * slide, out).status is Status.OK
        opened(patches)
        assert sorted(opens) == [f"s{i}" for i in range(last + 1)]


def test_slides_are_looked_for_where_they_are_now(cohort: Path, tmp_path: Path) -> None:
    plan = plan_cohort(cohort, patches_per_slide=2)
    out = np.empty((64, 64, 3), np.uint8)
    missing = PlannedPatches(plan, "jpegxl", tmp_path, tell=print)
    assert missing.describe(3) == {
        "row": 3,
        "slide_id": "slide_2",
        "x": int(plan.coords()[3, 0]),
        "y": int(plan.coords()[3, 1]),
    }
    read = missing.read(3, out)
    assert (read.status, read.encoded) == (Status.NO_SLIDE, None)
    assert str(tmp_path / "slide_2.svs") in read.reason
    shutil.copy(cohort.parent / "slide_2.svs", tmp_path)
    assert PlannedPatches(plan, None, tmp_path, tell=print).read(3, out).status is Status.OK


def test_a_store_gives_the_pixels_that_it_kept_and_its_reasons(
    copy: Path, plan: Plan, images: NDArray[np.uint8]
) -> None:
    Store(copy).first.ledger.forget(2)
    patches, out = StoredPatches(Store(copy)), np.empty((PATCH_PX, PATCH_PX, 3), np.uint8)
    for row in range(16):
        read = patches.read(row, out)
        assert read == (PatchRead(FAILED[row], reason="a reason") if row in FAILED else PatchRead(Status.OK))
        if row not in FAILED:
            np.testing.assert_array_equal(out, images[row])
        assert patches.describe(row) == PlannedPatches(plan, None, tell=print).describe(row)
    assert patches.read(16, out) == PatchRead(Status.ABSENT, reason="it is not in the store")  # of a pending shard


def test_an_embedding_that_is_not_finite_says_nothing_of_the_pixels(
    tmp_path: Path, plan: Plan, encoded: list[bytes], images: NDArray[np.uint8]
) -> None:
    embeddings = EMBEDDINGS.copy()
    embeddings[4] = np.inf
    store = continued_store(tmp_path / "s.zarr", plan)
    write_pending(store, encoded, embeddings=embeddings)
    assert store.first.read_status(0)[4] == Status.NOT_FINITE
    out = np.empty((PATCH_PX, PATCH_PX, 3), np.uint8)
    assert StoredPatches(store).read(4, out).status is Status.OK
    np.testing.assert_array_equal(out, images[4])


def test_views_are_those_of_the_patch_and_none_where_it_cannot_be_read() -> None:
    patch = noise(8, 8, 3)
    views = Views(3, seed=5)

    def source(rows: Sequence[int], out: NDArray[np.uint8]) -> list[PatchRead]:
        out[:] = patch
        bare = PatchRead(Status.EMPTY, reason="bare")
        return [bare if row == 1 else PatchRead(Status.OK, b"encoded") for row in rows]

    out = np.zeros((3, 8, 8, 3), np.uint8)
    assert ViewedPatches(source, views, 8).read(7, out) == PatchRead(Status.OK, b"encoded")
    np.testing.assert_array_equal(out, np.stack([patch, views.apply(patch, 7, 1), views.apply(patch, 7, 2)]))
    out[:] = 0
    assert ViewedPatches(source, views, 8).read(1, out) == PatchRead(Status.EMPTY, reason="bare")
    assert not out.any()
    some = np.zeros((3, 3, 8, 8, 3), np.uint8)
    results = ViewedPatches(source, views, 8).read_some([4, 1, 7], some)
    assert [each.status for each in results] == [Status.OK, Status.EMPTY, Status.OK]
    for row, seen in ((4, some[0]), (7, some[2])):
        np.testing.assert_array_equal(seen, np.stack([patch, views.apply(patch, row, 1), views.apply(patch, row, 2)]))
    assert not some[1].any()


@pytest.mark.slow
def test_slides_of_claimed_shards_are_copied_one_shard_ahead(tmp_path: Path) -> None:
    """Shards turn up one by one, with gaps, and share slides; there is room for one slide at a time."""
    plan = plan_cohort(write_cohort(tmp_path / "slides", 3))
    most_bytes = max(path.stat().st_size for path in (tmp_path / "slides").glob("*.svs"))
    patches = PlannedPatches(
        plan, None, tell=(told := list[str]()).append, stage=StageFolder(tmp_path / "s", most_bytes)
    )
    claimed, out, taken = [0, 1, 3, 4], np.empty((64, 64, 3), np.uint8), list[int]()

    def claim() -> Iterator[int]:
        for shard in claimed:
            taken.append(shard)
            yield shard

    def rows_of(shard: int) -> range:
        return range(shard * 7, min(shard * 7 + 7, plan.num_rows))

    read = []
    with patches.staged(()):
        for shard in patches.claimed_ahead(claim(), rows_of):
            read.append((shard, len(taken)))
            assert all(patches.read(row, out).status is Status.OK for row in rows_of(shard))
    assert read == [(0, 2), (1, 3), (3, 4), (4, 4)]
    assert told == []
    assert list((tmp_path / "s").iterdir()) == []
    taken.clear()
    plain = PlannedPatches(plan, None, tell=print)
    with plain.staged(()):
        assert [(shard, len(taken)) for shard in plain.claimed_ahead(claim(), rows_of)] == [
            (0, 1),
            (1, 2),
            (3, 3),
            (4, 4),
        ]
