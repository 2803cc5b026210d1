"""Files: complete or absent, whatever goes wrong; one writer at a time, known by name."""

import errno
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.failing import failing, os_error
from support.mounts import mounted, needs_mounts
from support.places import ROOT

from pipeline.base.errors import BusyError, G2LError
from pipeline.disk import files
from pipeline.disk.asides import ASIDE_SUFFIX, aside_name, remove_asides
from pipeline.disk.files import (
    bytes_below,
    make_output_folder,
    replace,
    require_new_file,
    sha256_file,
    sha256_json,
    temporary_folder,
    write_aside,
    write_bytes,
    write_json,
    write_text,
    written_by_library,
)
from pipeline.disk.locks import exclusive


class Stop(BaseException):
    """As Ctrl-C: not an `Exception`."""


@pytest.fixture(params=["old", "new"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A path that is there already, and one that is not."""
    path = tmp_path / "a.bin"
    if request.param == "old":
        path.write_bytes(b"old")
    return path


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_written_whole(target: Path) -> None:
    with write_aside(target) as f:
        f.write(b"new")
        assert content(target.parent).get(target.name) in (b"old", None)  # not before the end
    assert content(target.parent) == {target.name: b"new"}


@pytest.mark.parametrize("error", [ValueError("x"), Stop()])
def test_a_failing_block_changes_nothing(target: Path, error: BaseException) -> None:
    before = content(target.parent)
    with pytest.raises(type(error)), write_aside(target) as f:  # noqa: PT012
        f.write(b"half")
        f.flush()
        raise error
    assert content(target.parent) == before


@pytest.mark.parametrize("where", ["fsync", "replace"])
def test_a_full_disk_changes_nothing(target: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    """The disk is full when the bytes are synced, or the folder when the name is made."""
    before = content(target.parent)

    monkeypatch.setattr(files.os, where, failing(os_error(errno.ENOSPC)))
    with pytest.raises(OSError, match="No space left"):
        write_bytes(target, b"new")
    monkeypatch.undo()
    assert content(target.parent) == before


@needs_mounts
def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    with mounted("-t", "tmpfs", "-o", "size=64k", "none", at=tmp_path / "small") as small:
        for old in (True, False):
            target = small / f"a{old}"
            if old:
                target.write_bytes(b"old")
            before = content(small)
            with pytest.raises(OSError, match="No space left") as caught:
                write_bytes(target, b"x" * 100_000)
            assert caught.value.filename == str(target)  # a write to an open file says no name by itself
            assert content(small) == before


def test_nobody_can_lay_a_link_where_a_file_is_written(tmp_path: Path) -> None:
    """The name aside is random and made new; links of the names that earlier versions had stay what they are."""
    victim = tmp_path / "victim"
    victim.write_text("mine")
    out = tmp_path / "out"
    out.mkdir()
    for name in (".probe", "a"):
        (out / (name + ASIDE_SUFFIX)).symlink_to(victim)
    write_bytes(out / "a", b"new")
    make_output_folder(out)
    require_new_file(out / "b", "")
    assert victim.read_text() == "mine"
    assert (out / "a").read_bytes() == b"new"


@pytest.mark.parametrize("by_library", [False, True])
def test_a_link_under_the_very_name_aside_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by_library: bool
) -> None:
    """As if somebody had guessed the random name: the file must be made new, or not at all."""
    victim = tmp_path / "victim"
    victim.write_text("mine")
    out = tmp_path / "out"
    out.mkdir()
    monkeypatch.setattr("secrets.token_hex", lambda _: "0" * 8)
    for name in ("a", ".probe"):
        (out / aside_name(name)).symlink_to(victim)
    with pytest.raises(FileExistsError), written_by_library(out / "a") if by_library else write_aside(out / "a"):
        pass
    with pytest.raises(G2LError, match="cannot write to"):
        make_output_folder(out)
    assert victim.read_text() == "mine"


@pytest.mark.parametrize("umask", [0o022, 0o002, 0o077])
def test_rights_are_those_that_the_umask_leaves(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        write_bytes(tmp_path / "a", b"")
        make_output_folder(tmp_path / "b")
        with exclusive(tmp_path / "c", "me"):
            lock = (tmp_path / "c.g2l-lock").stat().st_mode & 0o777
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o666 & ~umask == lock
    assert (tmp_path / "b").stat().st_mode & 0o777 == 0o777 & ~umask


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.EACCES])
def test_a_file_system_that_cannot_sync_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: int
) -> None:
    real = os.fsync

    def fsync(fd: int) -> None:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            raise OSError(number, os.strerror(number))
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    write_bytes(tmp_path / "a", b"new")
    write_bytes(tmp_path / "b", b"new")
    assert content(tmp_path) == {"a": b"new", "b": b"new"}
    said = capsys.readouterr().err
    assert said.count(f"cannot be synced ({os.strerror(number)})") == 1


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOSYS, errno.ENOTSUP])
def test_a_file_system_without_permissions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: int
) -> None:
    def chmod(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number))

    real = os.chmod
    monkeypatch.setattr(files, "_shown_notes", set())
    monkeypatch.setattr(os, "chmod", chmod)
    with written_by_library(tmp_path / "same") as aside:
        aside.write_bytes(b"new")
    assert capsys.readouterr().err == ""  # nothing had to be set
    for name in ("a", "b"):
        with written_by_library(tmp_path / name) as aside:
            aside.write_bytes(b"new")
            real(aside, 0o600)
    assert content(tmp_path) == {"same": b"new", "a": b"new", "b": b"new"}
    assert capsys.readouterr().err.count(f"permissions cannot be set here ({os.strerror(number)})") == 1


def test_rights_that_a_library_narrows_follow_the_umask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def narrowed(name: str) -> None:
        with written_by_library(tmp_path / name) as aside:
            aside.write_bytes(b"new")
            aside.chmod(0o600)

    before = os.umask(0o022)
    try:
        narrowed("a")
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o644

    monkeypatch.setattr(files, "_set_mode", failing(os_error(errno.EIO)))
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        narrowed("b")
    assert list(content(tmp_path)) == ["a"]


@pytest.mark.parametrize("number", [errno.EEXIST, errno.EPERM])
def test_a_file_system_that_cannot_rename_over_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    real = os.rename

    def rename(old: Any, new: Any) -> None:
        if os.path.lexists(new):
            raise OSError(number, os.strerror(number), str(old), None, str(new))
        real(old, new)

    monkeypatch.setattr(os, "replace", rename)
    write_bytes(tmp_path / "a", b"old")
    write_bytes(tmp_path / "a", b"new")
    assert content(tmp_path) == {"a": b"new"}
    monkeypatch.setattr(os, "rename", rename)

    def nothing(old: Any, new: Any) -> None:
        raise OSError(number, os.strerror(number), str(old), None, str(new))

    monkeypatch.setattr(os, "rename", nothing)  # rights are missing, rather
    with pytest.raises(OSError, match=os.strerror(number)) as caught:
        write_bytes(tmp_path / "a", b"newer")
    assert caught.value.filename == str(tmp_path / "a")
    assert content(tmp_path) == {"a": b"new"}


def test_a_second_name_of_the_same_file_is_not_left(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")
    (tmp_path / "aside").hardlink_to(tmp_path / "f")
    replace(tmp_path / "aside", tmp_path / "f")
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


def test_names_that_differ_in_capitals_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files.require_names_apart(tmp_path, ["a", "A", "b"])  # this file system tells them apart
    assert not files.ignores_case(tmp_path)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(files, "ignores_case", lambda _: True)
    files.require_names_apart(tmp_path, ["a", "a", "b"])
    with pytest.raises(G2LError, match="ignores case: a and A would be one file"):
        files.require_names_apart(tmp_path, ["a", "b", "A"])


@needs_mounts
def test_a_file_system_that_ignores_case(tmp_path: Path) -> None:
    try:
        with mounted("-t", "tmpfs", "-o", "casefold", "none", at=tmp_path / "odd") as odd:
            (odd / "folder").mkdir()
            subprocess.run(["chattr", "+F", odd / "folder"], check=True, capture_output=True)
            assert files.ignores_case(odd / "folder")
            with pytest.raises(G2LError, match="ignores case: a and A would be one file"):
                files.require_names_apart(odd / "folder", ["a", "A"])
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this kernel has no such file system")


def test_a_name_that_is_not_utf8_is_told(tmp_path: Path) -> None:
    with pytest.raises(G2LError, match=r"a\.csv cannot hold .s.+udcff\.svs., a name that is not UTF-8\. Rename it"):
        write_text(tmp_path / "a.csv", "slide_id,path\ns,s\udcff.svs\n")
    write_json(tmp_path / "a.json", {"path": "s\udcff.svs"})
    assert json.loads((tmp_path / "a.json").read_text()) == {"path": "s\udcff.svs"}


def test_a_temporary_folder_is_gone(tmp_path: Path) -> None:
    with temporary_folder("g2l-test-") as folder:
        (folder / "a").touch()
    assert not folder.exists()


def test_synced_before_the_name_is_given(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(files.os, name, lambda *a, real=real, name=name: (calls.append(name), real(*a))[1])
    write_bytes(target, b"new")
    assert calls == ["fsync", "replace", "fsync"]  # the bytes, the name, the folder


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_bytes(tmp_path / "none" / "a", b"")


def test_text_and_json(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "é\n")
    write_json(tmp_path / "b", {"z": 1, "a": [None]})
    assert (tmp_path / "a").read_bytes() == b"\xc3\xa9\n"
    assert (tmp_path / "b").read_text() == '{\n  "z": 1,\n  "a": [\n    null\n  ]\n}\n'


def test_hashes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc" * (1 << 20))
    expected = subprocess.run(["sha256sum", tmp_path / "a"], capture_output=True, text=True, check=True).stdout
    assert sha256_file(tmp_path / "a") == expected.split()[0]
    assert sha256_json({"a": 1, "b": [1.5, None]}) == sha256_json({"b": [1.5, None], "a": 1})
    assert sha256_json({"a": 1}) != sha256_json({"a": 1.5})
    with pytest.raises(ValueError, match="not JSON compliant"):
        sha256_json({"a": float("nan")})


def test_remove_asides(tmp_path: Path) -> None:
    for name in ("a" + ASIDE_SUFFIX, "sub/deep/b.h5" + ASIDE_SUFFIX, "sub/kept.h5", "c" + ASIDE_SUFFIX + ".txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert remove_asides(tmp_path) == 2
    assert sorted(p.name for p in tmp_path.rglob("*") if p.is_file()) == ["c" + ASIDE_SUFFIX + ".txt", "kept.h5"]
    assert remove_asides(tmp_path) == 0


def test_output_folder(tmp_path: Path) -> None:
    make_output_folder(tmp_path / "a" / "b")
    make_output_folder(tmp_path / "a" / "b")
    assert list((tmp_path / "a" / "b").iterdir()) == []
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(G2LError, match=r"cannot write to .*file/a: Not a directory\. Choose another --out or fix"):
        make_output_folder(tmp_path / "file" / "a")
    with pytest.raises(G2LError, match=r"Choose another --overlays or fix"):
        make_output_folder(tmp_path / "file" / "a", "--overlays")


def test_require_new_file(tmp_path: Path) -> None:
    require_new_file(tmp_path / "new" / "a", "hint")
    (tmp_path / "new" / "a").write_bytes(b"")
    with pytest.raises(G2LError, match=r"new/a exists and is not overwritten\. hint"):
        require_new_file(tmp_path / "new" / "a", "hint")
    (tmp_path / "link").symlink_to(tmp_path / "nothing")
    with pytest.raises(G2LError, match="exists and is not overwritten"):
        require_new_file(tmp_path / "link", "hint")
    with pytest.raises(G2LError, match=r"new is a folder\. Give --out"):
        require_new_file(tmp_path / "new", "hint")


# One at a time

HOLD = """
import sys
from pathlib import Path
from pipeline.disk.locks import exclusive
with exclusive(Path(sys.argv[1]), "g2l hold"):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def holder(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds `folder` until its input is closed or it is killed."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, folder], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        try:
            assert process.stdout
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def test_a_second_process_is_refused_by_name(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    with holder(folder) as process:
        with pytest.raises(BusyError, match=rf"store is in use by g2l hold \(process {process.pid} on .*, since "):
            exclusive(folder, "me").__enter__()
        with exclusive(tmp_path / "other", "me"):  # only this folder
            pass
        assert process.stdin
        process.stdin.close()
        assert process.wait(10) == 0
        with exclusive(folder, "me"):
            pass


def test_a_killed_holder_frees_the_folder_at_once(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    with holder(folder) as process:
        process.send_signal(signal.SIGKILL)
        assert process.wait(10) == -signal.SIGKILL
        with exclusive(folder, "me"), pytest.raises(BusyError, match="in use by me"):
            exclusive(folder, "second").__enter__()  # and the dead one's name is gone


@pytest.mark.parametrize("error", [None, ValueError("x"), Stop()])
def test_nothing_is_left_of_a_lock(tmp_path: Path, error: BaseException | None) -> None:
    def work() -> None:
        with exclusive(tmp_path / "store", "me"):
            if error:
                raise error

    if error is None:
        work()
    else:
        with pytest.raises(type(error)):
            work()
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_sizes_below_a_folder_in_which_another_works(tmp_path: Path) -> None:
    """Files and folders come and go all the time; what stays is counted."""
    (tmp_path / "stays").mkdir()
    (tmp_path / "stays" / "a").write_bytes(b"0" * 300)
    (tmp_path / "link").symlink_to("nowhere")
    link_bytes = (tmp_path / "link").lstat().st_size
    goes_on = True

    def come_and_go() -> None:
        while goes_on:
            (tmp_path / "comes" / "and").mkdir(parents=True)
            (tmp_path / "comes" / "and" / "goes").write_bytes(b"0" * 20)
            shutil.rmtree(tmp_path / "comes")

    with ThreadPoolExecutor(1) as pool:
        at_work = pool.submit(come_and_go)
        sizes = {bytes_below(tmp_path) for _ in range(500)}
        goes_on = False
        at_work.result()
    assert sizes <= {300 + link_bytes, 320 + link_bytes}
    assert bytes_below(tmp_path) == 300 + link_bytes
    assert bytes_below(tmp_path / "nowhere") == 0
