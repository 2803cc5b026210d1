"""Rows as they are read: augmented alike whatever was read before, and where their pixels come from."""

from pathlib import Path

import numpy as np
import pytest
from support.first_augment import as_first_written
from support.stores import embed_patches, make_patches, make_store

from pipeline.base.draws import RunDraws
from pipeline.base.errors import StoreError
from pipeline.base.versions import versions
from pipeline.cohort.manifest.read import read_manifest
from pipeline.cohort.views.views import dihedral
from pipeline.config.plan import PlanConfig
from pipeline.store.create import create_store
from pipeline.store.format import Status, StoreSpec
from pipeline.store.patches import PatchRead, PlannedPatches
from pipeline.store.store import Store
from pipeline.store.writer import StoreWriter
from pipeline.training.augment import jitter_whole
from pipeline.training.rows.order import row_keys
from pipeline.training.rows.reading import StoredRows
from stages.plan import plan_slides


def test_rows_are_read_as_written_and_augmented_alike_whatever_was_read_before(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s.zarr", train=(10, 7), val=(4,), rows_per_shard=8, dtype="float32")
    rows = StoredRows([store.first], tell=print)
    patches = make_patches(21)
    out = np.empty((32, 32, 3), np.uint8)
    for row in (20, 3, 12):
        assert np.array_equal(rows.read(row, out), embed_patches(patches)[row])
        assert np.array_equal(out, patches[row])
    first = [rows.reader(RunDraws(1), 2, "flips+jitter").read(row, out).tobytes() + out.tobytes() for row in range(21)]
    together = np.empty((21, 32, 32, 3), np.uint8)
    embeddings = rows.reader(RunDraws(1), 2, "flips+jitter").read_some(range(21), together)
    assert [a.tobytes() + b.tobytes() for a, b in zip(embeddings, together, strict=True)] == first
    again = [
        rows.reader(RunDraws(1), 2, "flips+jitter").read(row, out).tobytes() + out.tobytes()
        for row in range(20, -1, -1)
    ]
    assert first == again[::-1]
    other = [rows.reader(RunDraws(1), 3, "flips+jitter").read(row, out).tobytes() + out.tobytes() for row in range(21)]
    assert all(a != b for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize("version", [1, 4, 5])
def test_runs_up_to_version_4_go_on_with_their_colours(tmp_path: Path, version: int) -> None:
    store = make_store(tmp_path / "s.zarr", train=(16,), rows_per_shard=8)
    rows, patches, out = StoredRows([store.first], tell=print), make_patches(16), np.empty((32, 32, 3), np.uint8)
    reader = rows.reader(RunDraws(1, version), 2, "flips+jitter")
    for row, key in enumerate(row_keys(np.arange(16), 1, 2, "augment").tolist()):
        read = reader.read(row, out)
        assert (read.dtype, rows.read(row, np.empty_like(out)).dtype) == (np.float16, np.float32)
        assert np.array_equal(read, store.first.read_embedding(row))
        if version < 5:
            assert np.array_equal(out, as_first_written(patches[row], key, "flips+jitter"))
        else:
            expected = np.empty_like(out)
            jitter_whole(dihedral(patches[row], key & 7), key, expected)
            assert np.array_equal(out, expected)


@pytest.mark.slow
def test_a_store_without_pixels_reads_the_slides_again_to_the_same_pixels(cohort: Path, tmp_path: Path) -> None:
    config = PlanConfig(patch_px=64, patches_per_slide=4, val_fraction=0.0)
    plan = plan_slides(read_manifest(cohort, None), config, workers=2)
    stores = {}
    for pixels in ("jpegxl", "none"):
        teacher = {"width": 2, "name": "t"}
        settings = {"rows_per_shard": plan.num_rows, "pixels": pixels, "dtype": "float32"}
        create_store(tmp_path / pixels, plan, StoreSpec(teacher, settings), versions())
        store = Store(tmp_path / pixels)
        patches = PlannedPatches(plan, None if pixels == "none" else "jpegxl", tell=print)
        with StoreWriter(store.first, patches.describe, "test") as writer:
            seen, reads = np.empty((plan.num_rows, 64, 64, 3), np.uint8), list[PatchRead]()
            for row in range(plan.num_rows):
                reads.append(patches.read(row, seen[row]))
            writer.put(range(plan.num_rows), np.ones((plan.num_rows, 2), np.float32), reads)
        assert all(read.status is Status.OK for read in reads)
        stores[pixels] = StoredRows([Store(tmp_path / pixels).first], tell=print)
    kept, read_again = (np.empty((64, 64, 3), np.uint8) for _ in range(2))
    assert plan.num_rows == 16
    for row in range(plan.num_rows):
        stores["jpegxl"].read(row, kept)
        stores["none"].read(row, read_again)
        assert np.array_equal(kept, read_again)
    assert kept.std() > 5  # tissue, not glass
    gone = StoredRows([Store(tmp_path / "none").first], slides_root=tmp_path / "nowhere", tell=print)
    with pytest.raises(
        StoreError,
        match=r"row 3 could be read for the teacher, but not now: .*nowhere.*give the folder of .* --slides-root",
    ):
        gone.read(3, kept)
