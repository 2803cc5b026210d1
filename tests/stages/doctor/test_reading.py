"""The speed of the slides' disk: measured over the whole file, told as slow, or as memory's."""

import itertools
import os
from pathlib import Path

import pytest

from pipeline.disk.objects.places import as_place
from stages.doctor import reading
from stages.doctor.reading import PART_BYTES, PARTS, largest_file, look_at_reading, read_spread


@pytest.mark.parametrize(("size", "expected"), [(0, 0), (10, 10), (PART_BYTES + 5, PART_BYTES)])
def test_a_small_file_is_read_once(tmp_path: Path, size: int, expected: int) -> None:
    (tmp_path / "a").write_bytes(b"x" * size)
    assert read_spread(tmp_path / "a")[0] == expected


def test_a_large_file_is_read_all_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = 100 * PART_BYTES + 7
    with open(tmp_path / "a", "wb") as file:
        file.truncate(size)
    places, pread = [], os.pread

    def noted(handle: int, count: int, start: int) -> bytes:
        places.append((start, count))
        return pread(handle, count, start)

    monkeypatch.setattr(os, "pread", noted)
    assert read_spread(tmp_path / "a")[0] == PARTS * PART_BYTES
    starts = [start for start, _ in places]
    assert len(starts) == PARTS
    assert starts[0] == 0
    assert all(later - start >= PART_BYTES for start, later in itertools.pairwise(starts))
    assert size - starts[-1] < 6 * PART_BYTES


@pytest.mark.parametrize(
    ("rate", "level", "words"),
    [(1e6, "note", "1.00 MB a second"), (200e6, "ok", "200 MB a second"), (9e9, "ok", "from memory")],
)
def test_a_slow_disk_is_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rate: float, level: str, words: str
) -> None:
    monkeypatch.setattr(reading, "read_spread", lambda path: (10_000_000, 1e7 / rate))
    (found,) = look_at_reading([tmp_path / "a.svs", tmp_path / "b.svs"])
    assert found.level == level
    assert words in found.words
    assert "of 2 slides" in found.words
    assert ("--stage-dir" in found.advice) == (level == "note")


def test_of_an_mrxs_slide_its_data_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.mrxs").write_bytes(b"a small picture")
    (tmp_path / "a").mkdir()
    for name, size in (("Slidedat.ini", 30), ("Data0000.dat", 3 * PART_BYTES), ("Data0001.dat", 2 * PART_BYTES)):
        (tmp_path / "a" / name).write_bytes(b"x" * size)
    assert largest_file(tmp_path / "a.mrxs") == tmp_path / "a" / "Data0000.dat"
    (tmp_path / "b.svs").write_bytes(b"one file")
    assert largest_file(tmp_path / "b.svs") == tmp_path / "b.svs"
    assert largest_file(tmp_path / "gone.svs") == tmp_path / "gone.svs"


def test_an_mrxs_slide_is_not_measured_by_its_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.mrxs").write_bytes(b"a small picture")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "Data0000.dat").write_bytes(bytes(100))
    read = []
    monkeypatch.setattr(reading, "read_spread", lambda path: (read.append(path.name), (1, 1.0))[1])
    list(look_at_reading([tmp_path / "a.mrxs"]))
    assert read == ["Data0000.dat"]


def test_what_cannot_be_read_is_passed_over(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    places = [tmp_path / "gone.svs", tmp_path, tmp_path / "pipe", as_place("s3://bucket/a.svs")]
    assert list(look_at_reading(places)) == []
