"""A slide that has changed since the teacher saw it has no part in fidelity; one that stage one read again is named."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from support.fidelity import OPTIONS
from support.slides import damage_tiles, make_slide
from support.stores import WIDTH

from pipeline.base.errors import BenchmarkError, StoreError
from pipeline.base.versions import versions
from pipeline.cohort.manifest.read import read_manifest
from pipeline.config.plan import PlanConfig
from pipeline.evaluate.fidelity.benchmark import FidelityBenchmark
from pipeline.evaluate.fidelity.changed import changed_files_note
from pipeline.evaluate.fidelity.rows import rows_of_changed, sample_note
from pipeline.slides.identity import parts_digest
from pipeline.store.changed_slides import noting_changed
from pipeline.store.create import create_store
from pipeline.store.format import StoreSpec
from pipeline.store.patches import PlannedPatches
from pipeline.store.store import Store
from pipeline.store.writer import StoreWriter
from stages.plan import plan_slides

SPEC = StoreSpec(
    {"width": WIDTH, "name": "t", "patch_px": 64}, {"rows_per_shard": 64, "pixels": "none", "dtype": "float32"}
)


@dataclass(frozen=True)
class Stored:
    """A store without pixels of slides a (to train on), b and c (held out), of four patches each."""

    store: Store

    def change(self, name: str) -> Path:
        """Another file in a slide's place, with the same quickhash."""
        path = self.store.plan.slide_path(next(s for s in self.store.plan.slides if s.slide_id == name), None)
        os.replace(damage_tiles(path, [(0, 0)], how="flip"), path)
        return path

    def look(self) -> FidelityBenchmark:
        return FidelityBenchmark.look(OPTIONS.model_copy(update={"store": self.store.folder}), workers=2)


@pytest.fixture
def stored(tmp_path: Path) -> Stored:
    for seed, name in enumerate("abc"):
        make_slide(tmp_path / f"{name}.svs", width=1000, height=800, mpp=0.5, downsamples=(1, 4), seed=seed)
    (tmp_path / "m.csv").write_text("slide_id,path,case_id,split\na,a.svs,1,train\nb,b.svs,2,val\nc,c.svs,3,val\n")
    plan = plan_slides(
        read_manifest(tmp_path / "m.csv", None), PlanConfig(patch_px=64, mpp=0.5, patches_per_slide=4), workers=1
    )
    create_store(tmp_path / "s.zarr", plan, SPEC, versions())
    store = Store(tmp_path / "s.zarr")
    patches, pixels = PlannedPatches(plan, None, tell=print), np.empty((64, 64, 3), np.uint8)
    reads = [patches.read(row, pixels) for row in range(plan.num_rows)]
    with StoreWriter(store.first, patches.describe, "test") as writer:
        writer.put(range(len(reads)), np.ones((len(reads), WIDTH), np.float32), reads)
    return Stored(store)


def test_the_planned_files_are_scored_without_a_word(stored: Stored) -> None:
    looked = stored.look()
    assert looked.notes == ()
    assert looked.rows.all.tolist() == list(range(12))
    assert rows_of_changed(looked.teacher, looked.rows, looked.changed.refused) == []


@pytest.mark.slow
def test_rows_of_a_changed_slide_are_left_out_and_listed(stored: Stored) -> None:
    path = stored.change("b")
    looked = stored.look()
    assert looked.rows.val.tolist() == [8, 9, 10, 11]
    assert looked.rows.changed.tolist() == [4, 5, 6, 7]
    (exclusion,) = rows_of_changed(looked.teacher, looked.rows, looked.changed.refused)
    assert exclusion.what == "4 held-out patches of slide b (rows 4, 5, 6, 7)"
    assert (exclusion.count, exclusion.by_rule) == (4, False)
    assert f"{path}: its file has changed since it was planned" in exclusion.why
    assert looked.notes == (
        f"{stored.store.folder}: 4 patches are of slides whose files are not those that the teacher has seen, and have "
        "no part in this. The report lists them",
    )
    assert sample_note(looked.teacher, looked.rows) == ""
    source = looked.patch_source()
    assert source is not None
    for row in source.rows:
        source.read(row, np.empty((64, 64, 3), np.uint8))


@pytest.mark.slow
def test_a_changed_file_that_stage_one_has_read_is_scored_and_told(
    stored: Stored, capsys: pytest.CaptureFixture[str]
) -> None:
    path = stored.change("b")
    noting_changed(stored.store.folder)(path, parts_digest(path)[0])
    looked = stored.look()
    assert looked.rows.all.tolist() == list(range(12))
    (note,) = looked.notes
    assert note == f"{stored.store.folder}: {changed_files_note(looked.changed)}"
    assert (
        f"1 slide has another file than was planned, which stage one may have read for some rows only: {path}" in note
    )
    source = looked.patch_source()
    assert source is not None
    source.read(4, np.empty((64, 64, 3), np.uint8))
    assert "has changed" not in capsys.readouterr().err


@pytest.mark.slow
def test_too_few_rows_are_left(stored: Stored) -> None:
    stored.change("a")
    with pytest.raises(
        BenchmarkError, match=r"0 rows are to train on, .* 1 slide is left out: .*a\.svs: its file has changed"
    ):
        stored.look()


@pytest.mark.slow
def test_a_slide_that_is_gone_is_told_when_it_is_read(stored: Stored) -> None:
    stored.store.plan.slide_path(stored.store.plan.slides[1], None).unlink()
    looked = stored.look()
    assert looked.notes == ()
    source = looked.patch_source()
    assert source is not None
    with pytest.raises(StoreError, match=r"b\.svs.*--slides-root"):
        source.read(4, np.empty((64, 64, 3), np.uint8))
