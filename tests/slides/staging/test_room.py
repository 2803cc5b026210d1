"""Room in the folder: never more than the bound, of all commands together, and nothing of dead ones stays."""

import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.commands import leftovers

from pipeline.base.errors import G2LError
from pipeline.base.processes import ProcessIdentity
from pipeline.config.staging import StageFolder
from pipeline.disk.files import bytes_below
from pipeline.disk.locks import exclusive
from pipeline.slides.staging import room as module
from pipeline.slides.staging.room import STAGED, StageRoom
from pipeline.slides.staging.slide_files import SlidePart


def parts(*sizes: int) -> list[SlidePart]:
    return [SlidePart(f"{i}/f" if i else "f", Path("nowhere"), size) for i, size in enumerate(sizes)]


@pytest.fixture
def room(tmp_path: Path) -> Iterator[StageRoom]:
    room = StageRoom(StageFolder(tmp_path / "stage", 1000))
    yield room
    room.close()


def test_files_have_their_sizes_at_once(room: StageRoom) -> None:
    folder = room.take(parts(300, 20))
    assert folder is not None
    assert [(folder / "f").stat().st_size, (folder / "1" / "f").stat().st_size] == [300, 20]
    assert bytes_below(room.folder) == 320
    room.give_back(folder)
    assert bytes_below(room.folder) == 0


def test_the_bound_is_exact(room: StageRoom) -> None:
    first = room.take(parts(600))
    assert first is not None
    assert room.take(parts(401)) is None
    assert room.take(parts(400)) is not None
    assert room.take(parts(1)) is None
    room.give_back(first)
    assert room.take(parts(600)) is not None


@settings(deadline=None, max_examples=12)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 500)), max_size=20))
def test_commands_together_stay_within_the_bound(steps: list[tuple[int, int]]) -> None:
    """Three that share a folder take and give back in any order; who has nothing gets room if there is any."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rooms = [StageRoom(StageFolder(folder, 1000)) for _ in range(3)]
        held: list[list[Path]] = [[], [], []]
        for who, size in steps:
            before, own = bytes_below(folder), bytes_below(rooms[who]._own)
            taken = rooms[who].take(parts(size))
            assert bytes_below(folder) == before + (0 if taken is None else size) <= 1000
            assert (taken is None) == (before + size > 1000 or (own > 0 and own + size > 1000 // 3))
            if taken is not None:
                held[who].append(taken)
            elif held[who]:
                rooms[who].give_back(held[who].pop(0))
        for each in rooms:
            each.close()
        assert leftovers(folder) == []


def test_a_command_leaves_others_their_share(tmp_path: Path) -> None:
    first, second = (StageRoom(StageFolder(tmp_path, 1000)) for _ in range(2))
    assert first.take(parts(400)) is not None
    assert first.take(parts(200)) is None  # of 500
    assert second.take(parts(550)) is not None  # it has nothing yet
    second.close()
    assert first.take(parts(200)) is not None
    first.close()


def test_room_that_the_disk_has_not(room: StageRoom) -> None:
    usage = shutil.disk_usage(room.folder)._replace(free=99)
    with mock.patch.object(shutil, "disk_usage", return_value=usage):
        assert room.take(parts(100)) is None
        assert room.take(parts(99)) is not None


def test_without_a_bound_half_of_what_is_free(tmp_path: Path) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=2001)
    with mock.patch.object(shutil, "disk_usage", return_value=usage):
        room = StageRoom(StageFolder(tmp_path))
    assert room.most_bytes == 1000
    room.close()


def test_a_second_command_without_a_bound_has_a_share_of_the_same_room(tmp_path: Path) -> None:
    """What the first one has staged is not free any more, but lies within the bound of both."""
    usage = shutil.disk_usage(tmp_path)._replace(free=2000)
    with mock.patch.object(shutil, "disk_usage", return_value=usage):
        first = StageRoom(StageFolder(tmp_path))
        assert first.take(parts(800)) is not None
    with mock.patch.object(shutil, "disk_usage", return_value=usage._replace(free=1200)):
        second = StageRoom(StageFolder(tmp_path))
        assert first.most_bytes == second.most_bytes == 1000
        assert second.take(parts(200)) is not None
    first.close()
    second.close()


def test_what_another_user_has_staged_counts_though_it_cannot_be_seen(tmp_path: Path) -> None:
    umask = os.umask(0o077)
    room = StageRoom(StageFolder(tmp_path, 1000))
    try:
        slide = room.take(parts(300))
        assert slide is not None
        assert [stat.S_IMODE(folder.stat().st_mode) for folder in (room._own, slide)] == [0o755, 0o700]
        assert {path.name for path in room._own.iterdir()} == {"0", "taken-300"}  # what others see
        another = tmp_path / "staged.00000000-1-2-0123abcd.g2l-part"  # whose slides cannot be listed
        another.mkdir()
        (another / "taken-650").touch()
        assert room.take(parts(60)) is None
        assert room.take(parts(50)) is not None
        room.give_back(slide)
        assert {path.name for path in room._own.iterdir()} == {"1", "taken-50"}
    finally:
        os.umask(umask)
        room.close()
    assert {path.name for path in tmp_path.iterdir()} == {another.name}


def test_what_a_killed_command_of_another_user_left_does_not_count(tmp_path: Path) -> None:
    left = tmp_path / dead_name()
    left.mkdir()
    (left / "taken-900").touch()
    with mock.patch.object(module, "remove_asides_of"):  # as if it could not be removed
        room = StageRoom(StageFolder(tmp_path, 1000))
        assert room.take(parts(500)) is None
        with mock.patch.object(module.os, "geteuid", return_value=os.geteuid() + 1):
            assert room.take(parts(500)) is not None
        room.close()


def dead_name() -> str:
    """The folder's name of a process that has ended."""
    ended = subprocess.run(
        [sys.executable, "-c", f"from pipeline.disk.asides import aside_name; print(aside_name({STAGED!r}))"],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[3],
    )
    return ended.stdout.strip()


def test_what_a_killed_command_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / dead_name() / "0").mkdir(parents=True)
    elsewhere = tmp_path / "staged.00000000-1-2-0123abcd.g2l-part"  # of another machine: perhaps at work
    elsewhere.mkdir()
    (tmp_path / "mine.svs").write_bytes(b"a file of the user's")
    room = StageRoom(StageFolder(tmp_path, 1000))
    assert {path.name for path in tmp_path.iterdir()} == {room._own.name, elsewhere.name, "mine.svs"}
    room.close()
    assert {path.name for path in tmp_path.iterdir()} == {elsewhere.name, "mine.svs"}


def test_room_of_a_command_killed_meanwhile_is_found(room: StageRoom) -> None:
    dead = room.folder / dead_name() / "0"
    dead.mkdir(parents=True)
    (dead / "f").write_bytes(b"0" * 900)
    assert room.take(parts(500)) is not None
    assert not dead.exists()


def test_a_living_one_is_kept(room: StageRoom) -> None:
    me = ProcessIdentity.current()
    assert room._own.name.startswith(f"{STAGED}.{me.scope}-{me.pid}-")
    again = StageRoom(StageFolder(room.folder, 1000))
    assert room._own.is_dir()
    again.close()
    assert room._own.is_dir()


def test_a_lock_that_is_held_for_long_means_no_room(room: StageRoom) -> None:
    with mock.patch.object(module, "LOCK_SECONDS", 0.05), exclusive(room.folder / STAGED, "a test"):
        assert room.take(parts(1)) is None
    assert room.take(parts(1)) is not None


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(G2LError, match=r"--stage-dir .*file cannot be written"):
        StageRoom(StageFolder(tmp_path / "file", 1))


def test_files_may_lie_in_folders_of_folders(room: StageRoom) -> None:
    folder = room.take([SlidePart("plan/coords/c/0/0", Path("nowhere"), 7)])
    assert folder is not None
    assert (folder / "plan" / "coords" / "c" / "0" / "0").stat().st_size == 7
