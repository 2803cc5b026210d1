"""Words of errors: the likely name, the system's paths, one line."""

import errno
import os
import tempfile
from pathlib import Path

import pytest
from PIL import UnidentifiedImageError
from support.limits import little_memory_left

from pipeline.base.errors import (
    LimitError,
    SlideError,
    did_you_mean,
    first_line,
    is_memory_gone,
    limit_of,
    raise_if_limit,
    words_of,
)


@pytest.mark.parametrize(
    ("given", "known", "meant"),
    [
        ("scrach", ("pretrained", "scratch"), "scratch"),
        ("UNI", ("uni", "uni2-h"), "uni"),
        ("logsum", ("log-sum",), "log-sum"),
        ("weights.pth", ("pretrained", "scratch"), ""),
        ("x", (), ""),
    ],
)
def test_a_mistyped_name_gets_the_likely_one(given: str, known: tuple[str, ...], meant: str) -> None:
    assert did_you_mean(given, known) == (f" (did you mean {meant}?)" if meant else "")


def test_an_error_of_the_system_names_the_paths_that_it_concerns(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="none") as caught:
        os.rename(tmp_path / "none", os.fsencode(tmp_path / "other"))
    assert words_of(caught.value) == f"{tmp_path}/none -> {tmp_path}/other: No such file or directory"
    with pytest.raises(OSError, match="none") as caught:
        (tmp_path / "none").read_bytes()
    assert words_of(caught.value) == f"{tmp_path}/none: No such file or directory"


def test_an_error_of_the_system_without_paths_or_number_still_has_words() -> None:
    assert words_of(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))) == "No space left on device"
    assert words_of(OSError("a library's own words")) == "a library's own words"
    assert words_of(OSError(errno.EIO, "x", 7)) == "x"  # a descriptor is no path


def test_where_nothing_temporary_can_be_written_a_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: ["/no such"])
    with pytest.raises(FileNotFoundError) as caught:
        tempfile.mkdtemp()
    assert words_of(caught.value) == (
        "No usable temporary directory found in ['/no such']. Set TMPDIR to a folder that can be written"
    )


@pytest.mark.parametrize(
    ("error", "line"), [(ValueError("one\ntwo"), "one"), (ValueError(), "ValueError"), (KeyError("a"), "'a'")]
)
def test_the_first_line_of_an_error(error: Exception, line: str) -> None:
    assert first_line(error) == line


def test_a_slide_s_error_keeps_what_is_known_of_it() -> None:
    assert SlideError("no mpp", {"width": 3}).facts == {"width": 3}
    assert not SlideError("no slide").facts


def test_a_working_folder_that_is_gone_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(FileNotFoundError) as caught:
        Path("x").absolute()
    assert words_of(caught.value).startswith("the working folder has been deleted")
    with pytest.raises(FileNotFoundError) as caught:
        (tmp_path / "none").stat()
    assert words_of(caught.value) == f"{tmp_path}/none: No such file or directory"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.EMFILE, os.strerror(errno.EMFILE), "a.svs"), "ulimit -n"),
        (OSError(errno.ENFILE, os.strerror(errno.ENFILE)), "fs.file-max"),
        (RuntimeError("Cannot hash TIFF tiles: Couldn't open a.svs: Too many open files"), "ulimit -n"),
        (RuntimeError("can't start new thread"), "ulimit -u"),
        (BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN)), "ulimit -u"),
    ],
)
def test_a_limit_of_the_process_is_told_from_a_fault_of_a_file(error: Exception, words: str) -> None:
    """Also where a library raised an error of its own for it."""
    with pytest.raises(LimitError, match=words):
        raise_if_limit(error)
    other = ImportError("no module 'codec'")
    other.__context__ = error
    assert words in str(limit_of(other))


def test_other_errors_are_no_limits() -> None:
    a_stream, a_lock = (errno.EAGAIN, "write could not complete without blocking"), (errno.EAGAIN, "x", "a.g2l-lock")
    for error in (OSError(errno.EIO, "x"), BlockingIOError(*a_stream), BlockingIOError(*a_lock), ValueError("4 files")):
        assert limit_of(error) is None
        raise_if_limit(error)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)),
        OSError("could not get source code"),
        ImportError("could not import name 'jpegxl_encode'"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0"),
        RuntimeError("could not create a primitive"),
        RuntimeError("can't start new thread"),
        ValueError("Insufficient memory (case 4)"),
    ],
)
def test_a_process_without_memory_is_told_from_a_file_that_asks_for_too_much(error: Exception) -> None:
    with little_memory_left():
        assert is_memory_gone()
        with pytest.raises(LimitError, match=r"no memory left\. Raise the limit \(ulimit -v\)"):
            raise_if_limit(error)
        raise_if_limit(ValueError("the tile is damaged"))
        raise_if_limit(ValueError("/data/memory_clinic/re-alloc/memory/a.png is no image"))
        raise_if_limit(UnidentifiedImageError("cannot identify image file 'memory.png'"))
    assert not is_memory_gone()
    assert "ulimit -v" not in str(limit_of(error))
