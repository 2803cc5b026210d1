"""A copy is the slide, byte for byte, or it is not used."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest
from support.dicom import RGB, write_slide
from support.mounts import mounted, needs_mounts
from support.slides import make_slide

from pipeline.disk.files import sha256_file
from pipeline.slides.reader import Slide
from pipeline.slides.staging import copies
from pipeline.slides.staging.copies import ExpectedSlide, copy_slide
from pipeline.slides.staging.slide_files import NotStagedError, slide_parts


@pytest.fixture
def slide(tmp_path: Path) -> Path:
    return make_slide(tmp_path / "a.svs", width=600, height=500, downsamples=(1,))


@pytest.fixture
def into(tmp_path: Path, slide: Path) -> Path:
    return room_for(slide, tmp_path / "into")


def room_for(slide: Path, folder: Path) -> Path:
    """A folder with the files of a slide, empty, at their sizes."""
    folder.mkdir()
    for part in slide_parts(slide):
        with open(folder / part.name, "wb") as f:
            f.truncate(part.num_bytes)
    return folder


def go_on() -> None:
    """Nothing stops."""


def copy(slide: Path, into: Path, go_on: Callable[[], object] = go_on, **expected: object) -> Path:
    return copy_slide(slide_parts(slide), into, replace(ExpectedSlide(slide), **expected), go_on)  # type: ignore[arg-type]


def test_a_copy_is_the_slide(slide: Path, into: Path) -> None:
    known = {"identity": Slide(slide).identity(), "sha256": sha256_file(slide).upper()}
    made = copy(slide, into, **known)
    assert made == into / "a.svs"
    assert made.read_bytes() == slide.read_bytes()
    assert Slide(slide, copy=made).identity() == Slide(slide).identity()


def test_a_dicom_series_is_copied_whole(tmp_path: Path) -> None:
    slide = write_slide(tmp_path / "s", "a", RGB, "1.2.3")[0]
    write_slide(tmp_path / "s", "b", RGB, "1.2.4")
    identity = Slide(slide).identity()
    assert identity.series_sha256 is not None
    made = copy(slide, room_for(slide, tmp_path / "into"), identity=identity)
    assert Slide(slide, copy=made).identity() == identity
    wrong = replace(identity, series_sha256="0" * 64)
    with pytest.raises(NotStagedError, match="not the slide that was planned"):
        copy(slide, room_for(slide, tmp_path / "again"), identity=wrong)


@pytest.mark.parametrize("change", [{"sha256": "0" * 64}, {"file_bytes": 3}])
def test_a_copy_of_another_slide_is_refused(slide: Path, into: Path, change: dict[str, object]) -> None:
    identity = replace(Slide(slide).identity(), **change)  # type: ignore[arg-type]
    with pytest.raises(NotStagedError, match="not the slide that was planned"):
        copy(slide, into, identity=identity)


def test_an_earlier_plan_knows_nothing_of_the_bytes(slide: Path, into: Path) -> None:
    identity = replace(Slide(slide).identity(), sha256=None, file_bytes=None, series_sha256=None)
    assert copy(slide, into, identity=identity).is_file()


def test_the_manifests_sha256_counts(slide: Path, into: Path) -> None:
    with pytest.raises(NotStagedError, match="manifest's sha256"):
        copy(slide, into, sha256="0" * 64)


@pytest.mark.parametrize("place", [0, 1000, -1])
def test_a_copy_that_is_damaged_on_the_local_disk_is_refused(slide: Path, into: Path, place: int) -> None:
    read_back = copies.read_back

    def damage(path: Path, go_on: Callable[[], object]) -> str:
        data = bytearray(path.read_bytes())
        data[place] ^= 1
        path.write_bytes(data)
        return read_back(path, go_on)

    with mock.patch.object(copies, "read_back", damage), pytest.raises(NotStagedError, match="is the local disk sound"):
        copy(slide, into)


def test_a_copy_that_was_cut_short_is_refused(slide: Path, into: Path) -> None:
    read_back = copies.read_back

    def cut(path: Path, go_on: Callable[[], object]) -> str:
        os.truncate(path, path.stat().st_size - 1)
        return read_back(path, go_on)

    with mock.patch.object(copies, "read_back", cut), pytest.raises(NotStagedError, match="differs"):
        copy(slide, into)


@pytest.mark.parametrize("change", ["longer", "shorter", "rewritten"])
def test_a_slide_that_changes_meanwhile_is_not_staged(slide: Path, into: Path, change: str) -> None:
    size, calls = slide.stat().st_size, 0

    def change_it() -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            if change == "rewritten":
                slide.write_bytes(b"x" * size)
                os.utime(slide, ns=(1, 1))
            else:
                os.truncate(slide, size + 1 if change == "longer" else size // 3)

    with mock.patch.object(copies, "BLOCK_BYTES", 4096), pytest.raises(NotStagedError, match="changed while"):
        copy(slide, into, change_it)


def test_a_source_that_cannot_be_read_is_left_to_the_reader(slide: Path, into: Path) -> None:
    def fail(descriptor: int, num_bytes: int) -> bytes:
        raise OSError(5, "Input/output error")

    with mock.patch.object(os, "read", fail), pytest.raises(NotStagedError, match=r"^$"):
        copy(slide, into)


@needs_mounts
def test_a_full_disk_is_an_error_of_the_folder(tmp_path: Path, slide: Path) -> None:
    with (
        mounted("-t", "tmpfs", "-o", "size=16k", "none", at=tmp_path / "small") as small,
        pytest.raises(OSError, match="No space left"),
    ):
        copy(slide, room_for(slide, small / "into"))
