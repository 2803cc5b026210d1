"""DICOM headers: which slide a file belongs to, and no answer where the header is damaged."""

import io
import os
import struct
from pathlib import Path

import numpy as np
import pytest
from support.dicom import CT_CLASS, RGB, SLIDE_CLASS, element, sequence, write_instance
from support.files import put
from support.limits import few_files_left

from pipeline.base.errors import LimitError
from pipeline.slides import dicom
from pipeline.slides.dicom import (
    IMPLICIT_LITTLE,
    MAX_DEPTH,
    MAX_TEXT_BYTES,
    UNREAD_SYNTAXES,
    DicomHeader,
    header_of,
    read_header,
)


def test_headers(tmp_path: Path) -> None:
    path = write_instance(tmp_path / "a.dcm", RGB, "1.2.3.4", 1)
    assert read_header(path) == DicomHeader("1.2.3.4", True, "volume")
    data = path.read_bytes()
    rng = np.random.default_rng(0)
    for stop in (0, 100, 131, 140, 200, 300, 400):
        assert read_header(put(tmp_path / "cut.dcm", data[:stop])) in (None, *_less_known())
    for _ in range(200):  # damaged: another answer or none, never an exception
        odd = bytearray(data[:800])
        for at in rng.integers(132, 800, 5):
            odd[at] = rng.integers(0, 256)
        read_header(put(tmp_path / "odd.dcm", bytes(odd)))
    assert read_header(tmp_path / "none.dcm") is None


def _less_known() -> list[DicomHeader]:
    """What may be read of a header that ends early."""
    return [DicomHeader("", known, kind) for known in (False, True) for kind in ("", "volume")]


EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
UNDEFINED_ITEM = struct.pack("<I2HI", 0xFFFFFFFF, 0xFFFE, 0xE000, 0xFFFFFFFF)
"""What follows the head of a sequence of undefined length: its length, and the head of an item of undefined length."""


def header(*body: bytes, syntax: str = EXPLICIT_LITTLE) -> bytes:
    """A file of these elements and no pixels."""
    return b"\0" * 128 + b"DICM" + element(2, 0x10, "UI", syntax) + b"".join(body)


def implicit(group: int, number: int, value: str) -> bytes:
    """A data element that does not say its kind."""
    return struct.pack("<HHI", group, number, len(value)) + value.encode()


def nested(depth: int) -> bytes:
    """Sequences of undefined length, one in another."""
    return sequence(8, 0x1140, *([nested(depth - 1)] if depth else []), undefined=True)


def test_a_header_without_kinds_of_values(tmp_path: Path) -> None:
    body = implicit(8, 8, "ORIGINAL\\PRIMARY\\LABEL\\NONE "), implicit(8, 0x16, SLIDE_CLASS), implicit(0x20, 0xE, "1.2")
    path = put(tmp_path / "a.dcm", header(*body, syntax=IMPLICIT_LITTLE))
    assert read_header(path) == DicomHeader("1.2", True, "label")


def test_what_stands_before_the_series_is_passed_over(tmp_path: Path) -> None:
    """Sequences whose length is told and is not, and values with a long length."""
    many = element(8, 0x1140, "UT", "x" * 70_000), sequence(8, 0x1140, b"y" * 10), nested(MAX_DEPTH)
    for passed in many:
        path = put(
            tmp_path / "a.dcm", header(element(8, 0x16, "UI", CT_CLASS), passed, element(0x20, 0xE, "UI", "1.2"))
        )
        assert read_header(path) == DicomHeader("1.2", False, "")


def test_a_file_may_end_before_its_series_or_have_none(tmp_path: Path) -> None:
    for end in (b"", element(0x28, 0x10, "US", 5) + b"pixels"):
        path = put(tmp_path / "a.dcm", header(element(8, 0x16, "UI", SLIDE_CLASS), end))
        assert read_header(path) == DicomHeader("", True, "")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"DICM" + b"\0" * 200,
        *(header(element(8, 0x16, "UI", SLIDE_CLASS), syntax=syntax) for syntax in UNREAD_SYNTAXES),
        header(nested(MAX_DEPTH + 5), element(0x20, 0xE, "UI", "1.2")),
        header(element(8, 0x16, "UT", "1" * (MAX_TEXT_BYTES + 2))),
        header(struct.pack("<HH", 8, 0x1140) + b"SQ" + struct.pack("<2xI", 0xFFFFFFFF) + b"no item here"),
    ],
    ids=["empty", "other", "deflated", "big endian", "too deep", "too long", "no item"],
)
def test_headers_that_are_not_read(tmp_path: Path, data: bytes) -> None:
    assert read_header(put(tmp_path / "a.dcm", data)) is None


@pytest.mark.parametrize("start", [header(), header(struct.pack("<HH", 8, 0x1140) + b"SQ\0\0" + UNDEFINED_ITEM)])
def test_a_header_that_goes_on_in_zeros_is_given_up_soon(start: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a download that reserved the file's space and was cut: in a gigabyte, 100 million elements."""
    file, most = io.BytesIO(start + bytes(80_000)), 1000
    monkeypatch.setattr(dicom, "MAX_ELEMENTS", most)
    assert header_of(file) is None
    assert file.tell() < len(start) + 8 * most + 100


def test_a_folder_has_no_header(tmp_path: Path) -> None:
    assert read_header(tmp_path) is None


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes of POSIX")
def test_a_pipe_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.dcm")
    assert read_header(tmp_path / "a.dcm") is None


def test_without_descriptors_no_header_is_called_missing(tmp_path: Path) -> None:
    """A series without some of its levels would be another slide."""
    path = tmp_path / "a.dcm"
    path.write_bytes(b"x")
    with few_files_left(), pytest.raises(LimitError, match=r"ulimit -n"):
        read_header(path)
