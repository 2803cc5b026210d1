"""A new folder is complete or absent, also where an empty one is there that cannot be replaced."""

import contextlib
import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
from support.commands import leftovers
from support.mounts import mounted, needs_mounts

from pipeline.disk.files import write_bytes
from pipeline.disk.folders import FILLING, empty_folder, is_free, move, new_folder
from pipeline.disk.locks import exclusive


def make(folder: Path, error: BaseException | None = None) -> None:
    with exclusive(folder, "me"), new_folder(folder, "zarr.json") as aside:
        (aside / "deep").mkdir(parents=True)
        for name in ("a", "deep/b", "zarr.json"):
            (aside / name).write_text("new")
        if error:
            raise error


def whole(folder: Path) -> bool:
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.name != "lost+found")
    return names == ["a", "deep", "deep/b", "zarr.json"]


@pytest.mark.parametrize("how", ["absent", "empty", "link", "link to nothing"])
def test_whole(tmp_path: Path, how: str) -> None:
    folder = tmp_path / "f"
    if how == "empty":
        folder.mkdir()
    elif how != "absent":
        folder.symlink_to(tmp_path / "target")
        if how == "link":
            (tmp_path / "target").mkdir()
    make(folder)
    assert whole(folder)
    assert folder.is_symlink() == how.startswith("link")
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("exists", [True, False])
@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt()])
def test_absent_after_an_error(tmp_path: Path, exists: bool, error: BaseException) -> None:
    folder = tmp_path / "f"
    if exists:
        folder.mkdir()
    with pytest.raises(type(error)):
        make(folder, error)
    assert [path for path in tmp_path.rglob("*") if path != folder] == []
    make(folder)
    assert whole(folder)


@needs_mounts
def test_into_a_volume(tmp_path: Path) -> None:
    """The place where one is mounted cannot be renamed or replaced: "Device or resource busy"."""
    with mounted("-t", "tmpfs", "none", at=tmp_path / "volume") as volume:
        (volume / "lost+found").mkdir()
        make(volume)
        assert whole(volume)
        assert leftovers(tmp_path) == []
        assert not is_free(volume)


@needs_mounts
def test_a_full_volume(tmp_path: Path) -> None:
    with mounted("-t", "tmpfs", "-o", "size=64k", "none", at=tmp_path / "volume") as volume:
        with pytest.raises(OSError, match="No space left"), new_folder(volume, "x") as aside:
            write_bytes(aside.parent / "x", bytes(200_000))
        assert list(volume.iterdir()) == []


def test_an_error_of_the_disk_names_the_folder(tmp_path: Path) -> None:
    """Libraries that write name no file, and the half-written one is gone when somebody reads the message."""
    for name in (None, "deep"):
        with pytest.raises(OSError, match="No space left") as caught, new_folder(tmp_path / "f", "x") as aside:
            raise OSError(errno.ENOSPC, "No space left on device", *([str(aside / name)] if name else []))
        assert caught.value.filename == str(tmp_path / "f")


@needs_mounts
@pytest.mark.parametrize("is_full", [False, True])
def test_a_folder_of_a_lower_layer_is_moved(tmp_path: Path, is_full: bool) -> None:
    (tmp_path / "lower" / "f" / "deep").mkdir(parents=True)
    (tmp_path / "lower" / "f" / "deep" / "a").write_bytes(bytes(100_000))
    (tmp_path / "lower" / "f" / "link").symlink_to("deep")
    size = "size=64k" if is_full else "size=1m"
    with mounted("-t", "tmpfs", "-o", size, "none", at=tmp_path / "layers") as layers:
        (layers / "upper").mkdir()
        (layers / "work").mkdir()
        words = f"lowerdir={tmp_path / 'lower'},upperdir={layers / 'upper'},workdir={layers / 'work'}"
        with mounted("-t", "overlay", "overlay", "-o", words, at=tmp_path / "seen") as seen:
            with pytest.raises(OSError, match="No space left") if is_full else contextlib.nullcontext():
                move(seen / "f", seen / "g")
            assert [path.name for path in seen.iterdir()] == (["f"] if is_full else ["g"])
            moved = next(seen.iterdir())
            assert (moved / "link").is_symlink()
            assert (moved / "deep" / "a").read_bytes() == bytes(100_000)


def test_killed_between_any_two_moves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a kill leaves: nothing is undone. The folder is free, or it has the file that makes it whole."""
    real = os.rename

    class Kill(BaseException):
        pass

    for moment in range(4):
        folder = tmp_path / str(moment)
        folder.mkdir()
        count = 0

        def rename(old: Any, new: Any, moment: int = moment) -> None:
            nonlocal count
            if count == moment:
                raise Kill
            count += 1
            real(old, new)

        with monkeypatch.context() as patch:
            patch.setattr(os, "rename", rename)
            patch.setattr("pipeline.disk.folders.remove", lambda _: None)
            if moment < 3:
                with pytest.raises(Kill):
                    make(folder)
            else:
                make(folder)
        assert is_free(folder) or (folder / "zarr.json").exists()
        assert (folder / "zarr.json").exists() == (moment == 3)
        if moment < 3:
            make(folder)
            assert whole(folder)
            assert leftovers(folder) == []


def test_free(tmp_path: Path) -> None:
    assert is_free(tmp_path / "none")
    assert is_free(tmp_path)
    (tmp_path / "file").touch()
    assert not is_free(tmp_path)
    assert not is_free(tmp_path / "file")
    (tmp_path / "link").symlink_to(tmp_path / "none")
    assert not is_free(tmp_path / "link")


# A list of entries that no killed run of this user has made


def entries_of(folder: Path) -> list[list[str | int]]:
    return [[path.name, path.lstat().st_dev, path.lstat().st_ino] for path in folder.iterdir()]


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A folder of the user's, with a file and a folder."""
    folder = tmp_path / "mine"
    (folder / "deep").mkdir(parents=True)
    (folder / "thesis.tex").write_text("mine")
    (folder / "deep" / "data").write_text("mine")
    return folder


def assert_kept(folder: Path) -> None:
    assert not is_free(folder)
    empty_folder(folder)
    assert (folder / "thesis.tex").read_text() == (folder / "deep" / "data").read_text() == "mine"


@pytest.mark.parametrize(
    "forged",
    [
        ["thesis.tex", "deep"],  # of an earlier version
        {"entries": ["thesis.tex", "deep"]},
        {"entries": [["thesis.tex"], ["deep"]]},
        {"entries": [["thesis.tex", 0, 0], ["deep", None, None]]},
        {"entries": [[], [1], {}, 7, None, ["\0", 0, 0], ["..", 0, 0]]},
        {"entries": {"thesis.tex": 0}},
        {"entries": 7},
        {},
        7,
        None,
    ],
    ids=str,
)
def test_a_forged_list_removes_nothing(mine: Path, forged: object) -> None:
    (mine / FILLING).write_text(json.dumps(forged))
    assert_kept(mine)


@pytest.mark.parametrize(
    "text", ["", "[" * 100_000, "\xff", " " * (1 << 21) + "{}"], ids=["empty", "deep", "bytes", "long"]
)
def test_a_damaged_list_removes_nothing(mine: Path, text: str) -> None:
    (mine / FILLING).write_bytes(text.encode("latin-1"))
    assert_kept(mine)


def test_an_entry_that_has_been_replaced_is_not_the_listed_one(mine: Path) -> None:
    (mine / "thesis.tex").rename(mine.parent / "kept")  # keeps its inode in use
    (mine / FILLING).write_text(json.dumps({"entries": [*entries_of(mine), *entries_of(mine.parent)]}))
    (mine / "thesis.tex").write_text("mine")
    (mine / "deep").rename(mine.parent / "deeper")
    (mine / "deep").mkdir()
    (mine / "deep" / "data").write_text("mine")
    assert_kept(mine)


@pytest.mark.parametrize("how", ["link", "second name", "pipe", "folder"])
def test_a_list_that_is_no_file_of_its_own_removes_nothing(mine: Path, how: str) -> None:
    """A list that would be right, but lies elsewhere; a pipe would wait for ever."""
    elsewhere = mine.parent / "elsewhere"
    elsewhere.write_text(json.dumps({"entries": entries_of(mine)}))
    if how == "link":
        (mine / FILLING).symlink_to(elsewhere)
    elif how == "second name":
        os.link(elsewhere, mine / FILLING)
    elif how == "pipe":
        os.mkfifo(mine / FILLING)
    else:
        (mine / FILLING).mkdir()
    assert_kept(mine)
    assert elsewhere.exists()


def test_a_list_of_another_user_removes_nothing(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (mine / FILLING).write_text(json.dumps({"entries": entries_of(mine)}))
    assert is_free(mine)  # as a killed run of this user would leave it
    monkeypatch.setattr(os, "getuid", lambda: (mine / FILLING).lstat().st_uid + 1)
    assert_kept(mine)
