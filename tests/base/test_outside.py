"""The boundary for files from outside: any error is one named failure, and nothing large is made first."""

import errno
import json
import os
from pathlib import Path

import pytest

from pipeline.base import outside
from pipeline.base.errors import BenchmarkError, LimitError, StoreError
from pipeline.base.outside import (
    NO_FILE,
    UnsafeError,
    file_trouble,
    printable,
    read_bytes,
    read_json,
    read_part,
    read_toml,
    reading,
)


@pytest.mark.parametrize(
    ("problem", "words"),
    [
        (MemoryError(), "more memory than there is"),
        (RecursionError("maximum"), "nested too deeply"),
        (OverflowError("Python int too large"), "too large"),
        (KeyError("coords"), "no 'coords'"),
        (IndexError("pop from empty list"), "pop from empty"),
        (OSError(5, "Input/output error"), r"\(Input/output error\)"),
        (ValueError(), r"\(ValueError\)"),
    ],
)
def test_any_exception_is_a_failure_of_the_file(problem: Exception, words: str) -> None:
    with (
        pytest.raises(
            BenchmarkError, match=rf"^a\.h5: not a readable feature file \(.*{words}.*\. Make it anew$|{words}"
        ),
        reading(Path("a.h5"), "not a readable feature file", BenchmarkError, "Make it anew"),
    ):
        raise problem


def test_what_stops_the_program_and_errors_of_g2l_pass() -> None:
    for passing in (KeyboardInterrupt(), SystemExit(2), StoreError("already told")):
        with pytest.raises(type(passing)) as caught, reading(Path("a"), "bad", BenchmarkError):
            raise passing
        assert caught.value is passing


def test_sizes_are_seen_before_anything_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    large = tmp_path / "a.json"
    large.touch()
    os.truncate(large, 2**42)  # sparse
    with pytest.raises(UnsafeError, match=r"4\.0 TiB"):
        read_bytes(large)
    with pytest.raises(UnsafeError, match=r"claims 29\.0 TiB"):
        outside.require_claim(29 * 2**40, 10_000, "features")
    outside.require_claim(1032 * 2**20, 2**20, "features")
    monkeypatch.setattr(outside, "free_memory_bytes", lambda: 2**30)
    outside.require_room(2**29, "it")
    with pytest.raises(UnsafeError, match=r"600\.0 MiB of memory"):
        outside.require_room(600 * 2**20, "it")
    monkeypatch.setattr(outside, "free_memory_bytes", lambda: None)
    outside.require_room(2**60, "it")  # the system does not say


def test_free_memory_is_some_of_the_machine() -> None:
    free = outside.free_memory_bytes()
    assert free is None or 2**20 < free < 2**50


def test_pipes_and_devices_are_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.json")
    (tmp_path / "b.json").symlink_to("/dev/zero")
    for name in ("a.json", "b.json"):
        with pytest.raises(UnsafeError, match="a pipe or device"):
            read_bytes(tmp_path / name)
    with pytest.raises(IsADirectoryError):
        read_bytes(tmp_path)
    (tmp_path / "c.json").write_text("{}")
    (tmp_path / "link.json").symlink_to("c.json")
    assert read_json(tmp_path / "link.json") == {}


@pytest.mark.parametrize(
    "text", ["", "{", "[1]", "null", "[" * 100_000, '{"a":' * 100_000, '{"a": ' + "9" * 5000 + "}"]
)
def test_json_of_any_kind_is_an_error_of_its_file(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(StoreError, match=r"a\.json: damaged"), reading(path, "damaged", StoreError):
        read_json(path)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "it is empty"),
        (b" \n", "it is empty"),
        (b"slide", "it is not JSON from line 1, column 1 on: expecting value"),
        (b'{"a": 1,\n"b"}', "it is not JSON from line 2, column 4 on"),
        (b'{"a": "\x89HDF"}', "it is not UTF-8 text from byte 8 on"),
    ],
)
def test_what_is_no_json_is_told_without_the_words_of_a_decoder(tmp_path: Path, data: bytes, words: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(data)
    with (
        pytest.raises(StoreError, match=rf"a\.json: damaged \({words}.*\)\. Make it anew$"),
        reading(path, "damaged", StoreError, "Make it anew"),
    ):
        read_json(path)


@pytest.mark.parametrize("data", [b"a = ", b"a = " + b"[" * 100_000, b"\xff\xfe", b"a = 1\na = 2"])
def test_toml_of_any_kind_is_an_error_of_its_file(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.toml"
    path.write_bytes(data)
    with pytest.raises(StoreError, match=r"a\.toml: damaged"), reading(path, "damaged", StoreError):
        read_toml(path)


def test_sound_files_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps({"a": [1]}))
    (tmp_path / "a.toml").write_text("[plan]\nseed = 1\n")
    assert read_json(tmp_path / "a.json") == {"a": [1]}
    assert read_toml(tmp_path / "a.toml") == {"plan": {"seed": 1}}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("slide_1.svs", "slide_1.svs"),
        ("Gewebe \N{LATIN SMALL LETTER O WITH DIAERESIS} \N{CJK UNIFIED IDEOGRAPH-75C5}",) * 2,
        ("a\nb\tc",) * 2,
        ("\x1b[2J\x1b]0;owned\x07", r"\x1b[2J\x1b]0;owned\x07"),
        ("a\rb\x08c\x9b31m", r"a\rb\x08c\x9b31m"),
        ("gnp.\N{RIGHT-TO-LEFT OVERRIDE}exe", r"gnp.\u202eexe"),
        ("zero\N{ZERO WIDTH SPACE}width", r"zero\u200bwidth"),
        (os.fsdecode(b"caf\xe9.svs"), r"caf\udce9.svs"),
    ],
)
def test_a_name_shows_as_text_on_a_terminal(text: str, shown: str) -> None:
    assert printable(text) == shown
    printable(text).encode()


def test_a_part_of_a_file_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(range(10)))
    assert read_part(path, 3, 4) == bytes(range(3, 7))
    assert read_part(path, 8, 4) == bytes([8, 9])
    assert read_part(path, 20, 4) == read_part(path, 3, 0) == b""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UnsafeError):
        read_part(tmp_path / "pipe", 0, 1)
    with pytest.raises(OSError, match="No such file"):
        read_part(tmp_path / "none", 0, 1)


@pytest.mark.timeout(20)  # a pipe would be waited for without end
def test_what_is_no_file_is_said_in_words(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    os.mkfifo(tmp_path / "pipe")
    for name, goal in (("link", "file"), ("broken", "gone"), ("loop", "loop")):
        (tmp_path / name).symlink_to(goal)
    words = {
        "file": "",
        "link": "",
        "pipe": "it is a pipe or device, not a file",
        ".": "it is a folder, not a file",
        "gone": NO_FILE,
        "file/gone": NO_FILE,
        "a\0b": NO_FILE,
        "broken": f"a link to {tmp_path / 'gone'}, which is not there",
    }
    assert {name: file_trouble(Path(f"{tmp_path}/{name}")) for name in words} == words
    assert "symbolic links" in file_trouble(tmp_path / "loop")


def test_a_limit_of_the_process_is_no_failure_of_a_file() -> None:
    with pytest.raises(LimitError, match=r"ulimit -n"), reading(Path("a.h5"), "damaged", StoreError):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), "a.h5")


def test_a_byte_order_mark_before_toml_is_passed_over(tmp_path: Path) -> None:
    """Editors of Windows write it, and none shows it."""
    (tmp_path / "a.toml").write_bytes(b"\xef\xbb\xbf[plan]\r\nseed = 1\r\n")
    assert read_toml(tmp_path / "a.toml") == {"plan": {"seed": 1}}
