"""What every store keeps, however it was made: plain, with a further teacher, imported, with views.

Each is written by the store's own writer with embeddings that are known, opened anew, and asked the same questions.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from numpy.typing import NDArray
from support.commands import leftovers
from support.extraction import store_files
from support.stores import TEACHER, make_patches, plan_of_rows

from pipeline.base.errors import EXIT_ERROR, EXIT_OK, EXIT_PARTIAL, ConfigError, StoreError
from pipeline.base.images import encode_image
from pipeline.base.versions import versions
from pipeline.cohort.plan import Plan
from pipeline.sampling import TRAIN, VAL
from pipeline.store.create import create_store, open_further, open_to_continue
from pipeline.store.format import Status, StoreSpec
from pipeline.store.patches import PatchRead, PlannedPatches, StoredPatches, patches_to_embed
from pipeline.store.store import Store, StoredTeacher
from pipeline.store.teachers import choose_teachers, made_with
from pipeline.store.writer import StoreWriter
from stages.inspect import inspect_path
from stages.verify import verify_store

PLAN = plan_of_rows()
PATCHES = make_patches(PLAN.num_rows)
FAILED = 20
"""The row that could not be read."""


@dataclass(frozen=True)
class Made:
    """How the embeddings of one teacher were made: its record, its settings, and what it gave, float32 (N, K, D)."""

    spec: StoreSpec
    embeddings: NDArray[np.float32]


def made(name: str, width: int, seed: int, rows_per_shard: int = 16, **settings: Any) -> Made:
    """A teacher of random embeddings."""
    record = TEACHER.record() | {
        "name": name,
        "width": width,
        "weights": "test",
        "weights_sha256": str(seed) * 64,
        "num_params": 1_000_000,
    }
    sizes = {
        "rows_per_shard": rows_per_shard,
        "pixels": "jpegxl",
        "dtype": "float32",
        "precision": "float32",
        "batch_size": 8,
    }
    shape = PLAN.num_rows, settings.get("views", 1), width
    embeddings = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    return Made(StoreSpec(record, sizes | settings), embeddings)


IMPORTED = {"layouts": ["trident"], "encoders": [], "options": {"min_cosine": 0.9}}
FIRST, FURTHER = made("first", 12, 1), made("second/of:two", 7, 2, rows_per_shard=10, pixels="none", dtype="float16")
KINDS: dict[str, tuple[Made, ...]] = {
    "plain": (FIRST,),
    "without pixels": (made("first", 12, 1, pixels="none"),),
    "further teacher": (FIRST, FURTHER),
    "imported": (made("first", 12, 1, imported=IMPORTED),),
    "views": (made("first", 12, 1, views=3, views_seed=5),),
    "further teacher with views": (made("first", 12, 1, views=3), made("second", 7, 2, 10, pixels="none", views=2)),
}


def describe(row: int) -> dict[str, Any]:
    return {"row": row, "slide_id": "?", "x": 0, "y": 0}


def fill(teacher: StoredTeacher, embeddings: NDArray[np.float32], shards: list[int]) -> None:
    """Write shards as stage one does."""
    with StoreWriter(teacher, describe, "test") as writer:
        for shard in shards:
            rows = teacher.ledger.rows(shard)
            images = [encode_image(PATCHES[row], "jpegxl") if teacher.keeps_pixels else None for row in rows]
            reads = [
                PatchRead(Status.UNREADABLE, reason="test") if row == FAILED else PatchRead(Status.OK, image)
                for row, image in zip(rows, images, strict=True)
            ]
            writer.put(rows, embeddings[rows.start : rows.stop], reads)


def open_teachers(folder: Path, kind: str) -> list[StoredTeacher]:
    """The teachers of a store, made or opened to be continued as stage one does."""
    first, *others = KINDS[kind]
    if not folder.exists():
        create_store(folder, PLAN, first.spec, versions())
    store = open_to_continue(folder, PLAN, first.spec)
    if store.first.ledger.pending():
        fill(store.first, first.embeddings, store.first.ledger.pending())
    return [store.first, *(open_further(store, PLAN, other.spec, versions()) for other in others)]


def make(folder: Path, kind: str) -> Store:
    """A finished store."""
    for teacher, how in zip(open_teachers(folder, kind), KINDS[kind], strict=True):
        fill(teacher, how.embeddings, teacher.ledger.pending())
    return Store(folder)


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def whole(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A finished store of the kind; shared, not changed."""
    return make(tmp_path_factory.mktemp("whole") / "store.zarr", kind)


@pytest.fixture
def copy(whole: Store, tmp_path: Path) -> Store:
    """One that a test may change."""
    return Store(Path(shutil.copytree(whole.folder, tmp_path / "copy.zarr")))


@pytest.fixture(params=[0, -1], ids=["first teacher", "last teacher"])
def pick(request: pytest.FixtureRequest) -> Callable[[Store], StoredTeacher]:
    """One of a store's teachers."""
    place: int = request.param
    return lambda store: list(store.teachers.values())[place]


def test_it_opens_with_its_plan_and_its_teachers_in_order(whole: Store, kind: str) -> None:
    assert whole.plan.hash == PLAN.hash
    assert (whole.num_rows, whole.patch_px) == (PLAN.num_rows, PLAN.config.patch_px)
    assert list(whole.teachers) == [how.spec.teacher["name"] for how in KINDS[kind]]
    for (name, teacher), how in zip(whole.teachers.items(), KINDS[kind], strict=True):
        assert type(teacher) is StoredTeacher
        assert (teacher.name, teacher.record, teacher.settings) == (name, how.spec.teacher, how.spec.settings)
        assert (teacher.store, teacher.plan) == (whole, whole.plan)
        assert whole.teacher(name).folder == teacher.folder
    assert [teacher.is_first for teacher in whole.teachers.values()] == [True] + [False] * (len(KINDS[kind]) - 1)
    assert whole.first.folder == whole.folder
    with pytest.raises(ConfigError, match="has embeddings of first"):
        whole.teacher("another")


def test_ledger_and_arrays_agree(whole: Store) -> None:
    counts = {**dict.fromkeys(Status.__members__, 0), "OK": PLAN.num_rows - 1, "UNREADABLE": 1}
    good = [row for row in range(PLAN.num_rows) if row != FAILED]
    for teacher in whole.teachers.values():
        assert teacher.ledger.pending() == []
        assert teacher.ledger.status_counts() == counts
        assert [(f["row"], f["status"], f["reason"]) for f in teacher.ledger.failures()] == [
            (FAILED, "UNREADABLE", "test")
        ]
        assert teacher.ok_rows().tolist() == good
        split = PLAN.split()
        for which in (TRAIN, VAL):
            assert teacher.ok_rows(which).tolist() == [row for row in good if split[row] == which]
        for shard, entry in teacher.ledger.entries():
            assert entry is not None
            names = {
                teacher.shard_path(array, shard).relative_to(teacher.folder).as_posix() for array in teacher.arrays
            }
            assert entry["files"].keys() == names
            assert teacher.check_files(shard) == []


def test_what_was_written_is_read(whole: Store, kind: str) -> None:
    group: Any = zarr.open_group(str(whole.folder), mode="r")
    for teacher, how in zip(whole.teachers.values(), KINDS[kind], strict=True):
        expected = how.embeddings.astype(teacher.dtype)
        expected[FAILED] = np.nan
        blocks = [teacher.read_views(shard) for shard in range(teacher.num_shards)]
        np.testing.assert_array_equal(np.concatenate(blocks), expected)
        plain = np.concatenate([teacher.read_embeddings(shard) for shard in range(teacher.num_shards)])
        np.testing.assert_array_equal(plain, expected[:, 0])
        for row in (0, 9, 10, 17, PLAN.num_rows - 1):
            for view in range(teacher.views.count):
                read = teacher.read_embedding(row, view)
                np.testing.assert_array_equal(read, expected[row, view].astype(np.float32))
        by_zarr = group if teacher.is_first else group[teacher.folder.relative_to(whole.folder).as_posix()]
        np.testing.assert_array_equal(by_zarr["embedding"][:], expected[:, 0])


def test_pixels_are_the_store_s_whatever_teacher_is_asked(whole: Store) -> None:
    for teacher in whole.teachers.values():
        source = patches_to_embed(teacher, PLAN, None, tell=print)
        reads_store = not teacher.is_first and whole.has_pixels
        assert isinstance(source, StoredPatches if reads_store else PlannedPatches)
        assert teacher.keeps_pixels == ("pixels" in teacher.arrays) == (teacher.is_first and whole.has_pixels)
    if whole.has_pixels:
        for row in (0, 15, 16, PLAN.num_rows - 1):
            np.testing.assert_array_equal(whole.read_pixels(row), PATCHES[row])
        with pytest.raises(StoreError, match=f"row {FAILED} has no pixels"):
            whole.read_pixels(FAILED)


def test_verify_is_clean_and_inspect_names_all(whole: Store) -> None:
    text, code = verify_store(whole.folder, None, 0, "cpu")
    assert code == EXIT_OK
    assert text.count("all files are as written") == len(whole.teachers)
    said = inspect_path(whole.folder)
    assert all(f"{name} (1.0 M parameters" in said for name in whole.teachers)


def test_shards_that_are_missing_are_pending_and_are_done_to_the_same_bytes(
    copy: Store, kind: str, pick: Callable[[Store], StoredTeacher]
) -> None:
    before, teacher = store_files(copy.folder), pick(copy)
    command = made_with(teacher)
    assert command == ("import-features" if kind == "imported" else "extract-teacher")
    teacher.ledger.forget(1)
    teacher.shard_path("embedding", 1).unlink()
    assert Store(copy.folder).teacher(teacher.name).ledger.pending() == [1]
    text, code = verify_store(copy.folder, None, 0, "cpu")
    assert (code, f"1 shard pending: run {command} again" in text) == (EXIT_PARTIAL, True)
    with pytest.raises(StoreError, match=f"is not finished: 1 of {teacher.num_shards} shards are missing"):
        choose_teachers(copy, [teacher.name], None)
    make(copy.folder, kind)
    assert store_files(copy.folder) == before
    assert leftovers(copy.folder) == []


def test_a_changed_byte_is_found(copy: Store, pick: Callable[[Store], StoredTeacher]) -> None:
    teacher = pick(copy)
    for array in teacher.arrays:
        path = teacher.shard_path(array, 1)
        data = path.read_bytes()
        path.write_bytes(data[:20] + bytes([data[20] ^ 1]) + data[21:])
        text, code = verify_store(copy.folder, None, 0, "cpu")
        assert (code, f"{array}/c/1" in text) == (EXIT_ERROR, True), array
        path.write_bytes(data)


def test_other_settings_are_not_continued(copy: Store, kind: str) -> None:
    first, *others = KINDS[kind]
    other = StoreSpec(first.spec.teacher, first.spec.settings | {"batch_size": 3})
    with pytest.raises(StoreError, match=r"settings\.batch_size: 8 -> 3"):
        open_to_continue(copy.folder, PLAN, other)
    for how in others:
        other = StoreSpec(how.spec.teacher, how.spec.settings | {"batch_size": 3})
        with pytest.raises(StoreError, match=r"settings\.batch_size: 8 -> 3"):
            open_further(copy, PLAN, other, versions())
    another_plan: Plan = plan_of_rows(seed=1)
    with pytest.raises(StoreError, match="plan_hash"):
        open_to_continue(copy.folder, another_plan, first.spec)


def test_a_further_teacher_changes_nothing_of_what_is_there(copy: Store) -> None:
    before, hashes = store_files(copy.folder), {name: t.content_hash() for name, t in copy.teachers.items()}
    added = made("added", 5, 9, pixels="none")
    teacher = open_further(copy, PLAN, added.spec, versions())
    assert teacher.ledger.pending() == list(range(teacher.num_shards))
    fill(teacher, added.embeddings, teacher.ledger.pending())
    now = Store(copy.folder)
    assert set(now.teachers) == {*hashes, "added"}
    assert {name: now.teacher(name).content_hash() for name in hashes} == hashes
    assert now.teacher("added").content_hash() not in hashes.values()
    files = store_files(copy.folder)
    assert {name: files[name] for name in before} == before
    assert all(name.startswith("teachers/") for name in files.keys() - before.keys())


def test_the_content_hash_of_a_teacher_covers_the_pixels_that_it_saw(copy: Store) -> None:
    """Not the ledger's seconds and device: those differ from run to run."""
    hashes = [teacher.content_hash() for teacher in copy.teachers.values()]
    entry = copy.first.ledger.read(1)
    assert entry is not None
    copy.first.ledger.write(1, entry | {"seconds": 99.0, "device": "another"})
    assert [teacher.content_hash() for teacher in Store(copy.folder).teachers.values()] == hashes
    name = sorted(entry["files"])[-1]
    entry["files"][name]["sha256"] = "0" * 64
    copy.first.ledger.write(1, entry)
    now = [teacher.content_hash() for teacher in Store(copy.folder).teachers.values()]
    assert all(after != before for after, before in zip(now, hashes, strict=True))


def test_teachers_are_chosen_in_the_order_of_the_call(whole: Store) -> None:
    names = list(whole.teachers)[::-1]
    chosen = choose_teachers(whole, names, [3.0] * len(names))
    assert chosen.names == names
    assert sum(chosen.weights) == pytest.approx(1)
    assert [teacher.width for teacher in chosen.stored] == chosen.widths
