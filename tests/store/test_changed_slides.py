"""A slide whose file has changed: what reads it again after stage one accepts the planned file and those it noted."""

import os
import threading
from pathlib import Path

import numpy as np
import pytest
from support.commands import leftovers
from support.slides import damage_tiles, make_slide
from support.stores import WIDTH

from pipeline.base.errors import StoreError
from pipeline.base.versions import versions
from pipeline.cohort.manifest.read import read_manifest
from pipeline.cohort.plan import Plan
from pipeline.config.plan import PlanConfig
from pipeline.slides.identity import parts_digest
from pipeline.slides.pool import Accepts
from pipeline.store.changed_slides import CHANGED_FILE, noting_changed, only_noted, read_changed
from pipeline.store.create import create_store
from pipeline.store.format import Status, StoreSpec
from pipeline.store.patches import PlannedPatches
from pipeline.store.store import Store
from pipeline.store.writer import StoreWriter
from pipeline.training.rows.reading import StoredRows
from stages.plan import plan_slides

SPEC = StoreSpec({"width": WIDTH, "name": "t"}, {"rows_per_shard": 64, "pixels": "none", "dtype": "float32"})


@pytest.fixture
def planned(tmp_path: Path) -> Plan:
    """The plan of a slide whose quickhash is of its second level."""
    make_slide(tmp_path / "a.svs", width=1000, height=800, mpp=0.5, downsamples=(1, 4))
    (tmp_path / "m.csv").write_text("slide_id,path\na,a.svs\n")
    config = PlanConfig(patch_px=64, patches_per_slide=4, val_fraction=0.0)
    return plan_slides(read_manifest(tmp_path / "m.csv", None), config, workers=1)


def write_rows(store: Store, accepts: Accepts | None = None) -> list[Status]:
    """Stage one, with made-up embeddings; returns what became of the rows."""
    patches = PlannedPatches(store.plan, None, tell=print, accepts_changed=accepts)
    pixels = np.empty((64, 64, 3), np.uint8)
    reads = [patches.read(row, pixels) for row in range(store.plan.num_rows)]
    with StoreWriter(store.first, patches.describe, "test") as writer:
        writer.put(range(len(reads)), np.ones((len(reads), WIDTH), np.float32), reads)
    return [read.status for read in reads]


def change(plan: Plan, tile: int) -> Path:
    """Another file in the slide's place, with the same quickhash: a tile at the edge is damaged."""
    path = plan.slide_path(plan.slides[0], None)
    os.replace(damage_tiles(path, [(tile, 0)], how="flip"), path)
    return path


def read_rows(store: Store, told: list[str]) -> None:
    rows = StoredRows([store.first], tell=told.append)
    for row in range(store.plan.num_rows):
        rows.read(row, np.empty((64, 64, 3), np.uint8))


def new_store(folder: Path, plan: Plan, g2l: str | None = None) -> Store:
    create_store(folder, plan, SPEC, versions() | ({"g2l": g2l} if g2l else {}))
    return Store(folder)


def test_a_file_that_changed_after_stage_one_is_refused_by_name(planned: Plan, tmp_path: Path) -> None:
    store = new_store(tmp_path / "s.zarr", planned)
    assert set(write_rows(store)) == {Status.OK}
    path = change(planned, 0)
    with pytest.raises(StoreError, match=rf"{path.name}: its file has changed since it was planned.*Restore it"):
        read_rows(store, [])


@pytest.mark.slow
def test_a_file_that_stage_one_has_read_is_read_again_and_no_other(planned: Plan, tmp_path: Path) -> None:
    store = new_store(tmp_path / "s.zarr", planned)
    path, told = change(planned, 0), list[str]()
    assert set(write_rows(store, noting_changed(store.folder))) == {Status.OK}
    assert read_changed(store.folder) == {parts_digest(path)[0]: path.name}
    read_rows(store, told)
    change(planned, 1)
    with pytest.raises(StoreError, match="its file has changed since it was planned"):
        read_rows(store, told)
    noting_changed(store.folder)(path, parts_digest(path)[0])
    assert len(read_changed(store.folder)) == 2
    read_rows(store, told)


@pytest.mark.slow
def test_nothing_is_noted_of_planned_files(planned: Plan, tmp_path: Path) -> None:
    store = new_store(tmp_path / "s.zarr", planned)
    write_rows(store, noting_changed(store.folder))
    assert not (store.folder / CHANGED_FILE).exists()


@pytest.mark.slow
def test_of_a_store_of_an_earlier_version_a_changed_file_is_warned_of_once(planned: Plan, tmp_path: Path) -> None:
    store, told = new_store(tmp_path / "s.zarr", planned, g2l="0.1.0"), list[str]()
    write_rows(store)
    change(planned, 0)
    for _ in range(2):
        read_rows(store, told)
    assert len([words for words in told if words.startswith("warning: ") and words.endswith("It is read")]) == 1


@pytest.mark.slow
@pytest.mark.parametrize("damage", [b"", b"[]", b"{"])
def test_damaged_notes_are_named(planned: Plan, tmp_path: Path, damage: bytes) -> None:
    store = new_store(tmp_path / "s.zarr", planned)
    (store.folder / CHANGED_FILE).write_bytes(damage)
    for look in (lambda: only_noted(store), lambda: noting_changed(store.folder)):
        with pytest.raises(StoreError, match=rf"{CHANGED_FILE}: damaged"):
            look()


@pytest.mark.slow
def test_processes_that_note_at_once_lose_nothing(planned: Plan, tmp_path: Path) -> None:
    """Each has read the notes before the others wrote theirs; nothing is left beside them."""
    store = new_store(tmp_path / "s.zarr", planned).folder
    accepting = [noting_changed(store) for _ in range(6)]
    threads = [
        threading.Thread(target=accepts, args=(Path(f"{i}.svs"), f"hash-{i}")) for i, accepts in enumerate(accepting)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert read_changed(store) == {f"hash-{i}": f"{i}.svs" for i in range(6)}
    assert leftovers(store) == []
    accepting[0](Path("other.svs"), "hash-5")
    assert read_changed(store)["hash-5"] == "5.svs"
