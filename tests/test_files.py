"""Files: complete or absent, whatever goes wrong; one writer at a time, known by name."""

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pipeline import files
from pipeline.asides import ASIDE_SUFFIX, remove_asides
from pipeline.errors import BusyError, G2LError
from pipeline.files import (
    make_output_folder,
    require_new_file,
    sha256_file,
    sha256_json,
    write_aside,
    write_bytes,
    write_json,
    write_text,
)
from pipeline.locks import exclusive

ROOT = Path(__file__).resolve().parents[1]


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

    def fail(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, where, fail)
    with pytest.raises(OSError, match="No space left"):
        write_bytes(target, b"new")
    monkeypatch.undo()
    assert content(target.parent) == before


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
def test_a_disk_that_is_really_full(target: Path) -> None:
    before = content(target.parent)
    (target.parent / (target.name + ASIDE_SUFFIX)).symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        write_bytes(target, b"x" * 100_000)
    assert content(target.parent) == before


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
    with pytest.raises(G2LError, match=r"cannot write to .*file/a: Not a directory"):
        make_output_folder(tmp_path / "file" / "a")


def test_require_new_file(tmp_path: Path) -> None:
    require_new_file(tmp_path / "new" / "a", "hint")
    (tmp_path / "new" / "a").write_bytes(b"")
    with pytest.raises(G2LError, match=r"new/a exists and is not overwritten\. hint"):
        require_new_file(tmp_path / "new" / "a", "hint")


# One at a time

HOLD = """
import sys
from pathlib import Path
from pipeline.locks import exclusive
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
