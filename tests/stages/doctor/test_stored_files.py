"""Stores that lack files: half a copy, a file that was cut, no plan."""

import shutil
from pathlib import Path

import pytest
from support.stores import copy_with_teacher, make_store

from pipeline.store.store import Store
from stages.doctor import work
from stages.doctor.findings import Finding
from stages.doctor.stored_files import look_at_files


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of two teachers."""
    folder = tmp_path_factory.mktemp("stored")
    make_store(folder / "one.zarr", train=(8,), val=(8,), rows_per_shard=8, pixels="none")
    return copy_with_teacher(folder / "one.zarr", folder / "s.zarr", "other")


def found_in(folder: Path) -> list[Finding]:
    """What is said of a store beside its teachers and its slides, which are nowhere."""
    store = Store(folder)
    return [each for each in work.look_at_store(store) if each.subject not in (*store.teachers, "slides")]


def test_a_whole_store_lacks_nothing(stored: Path) -> None:
    assert list(look_at_files(Store(stored))) == []
    assert found_in(stored) == []


@pytest.mark.parametrize("which", [0, 1])
def test_half_a_copy_is_trouble(stored: Path, tmp_path: Path, which: int) -> None:
    """The ledgers are there, and files of shards are missing or cut."""
    store = Store(shutil.copytree(stored, tmp_path / "s.zarr"))
    teacher = list(store.teachers.values())[which]
    gone, cut = (teacher.shard_path("embedding", shard) for shard in (0, 1))
    gone.unlink()
    cut.write_bytes(cut.read_bytes()[:-1])
    (finding,) = found_in(store.folder)
    assert (finding.subject, finding.level) == ("files", "trouble")
    assert finding.words == f"2 files of {teacher.name}'s finished shards missing or cut: {gone} is missing"
    gone.write_bytes(b"")
    (finding,) = look_at_files(store)
    assert finding.words.endswith(f"{gone} has 0 bytes")


def test_a_store_without_its_plan_is_trouble(stored: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(stored, tmp_path / "s.zarr")
    shutil.rmtree(folder / "plan")
    assert [(each.subject, each.level) for each in found_in(folder)] == [("plan", "trouble")]


def test_files_of_shards_to_come_are_not_missed(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s.zarr", train=(8, 8), val=(8,), rows_per_shard=8, shards=2)
    assert list(look_at_files(store)) == []
