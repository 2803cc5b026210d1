"""The files of a slide: one, a folder beside it, a series; anything else is read in place."""

import os
from pathlib import Path

import pytest
from support.dicom import RGB, write_slide
from support.slides import make_slide

from pipeline.slides.staging.slide_files import NotStagedError, slide_parts


def names(path: Path) -> list[str]:
    parts = slide_parts(path)
    assert all(part.num_bytes == part.source.stat().st_size for part in parts)
    return [part.name for part in parts]


def test_a_slide_of_one_file(tmp_path: Path) -> None:
    path = make_slide(tmp_path / "a.svs", width=300, height=200, downsamples=(1,))
    (tmp_path / "a").mkdir()
    (tmp_path / "b.svs").write_bytes(b"another")
    assert names(path) == ["a.svs"]


def test_an_mrxs_file_has_its_folder(tmp_path: Path) -> None:
    path, folder = tmp_path / "a.mrxs", tmp_path / "a"
    path.write_bytes(b"index")
    assert names(path) == ["a.mrxs"]
    folder.mkdir()
    for name in ("Slidedat.ini", "Data0000.dat"):
        (folder / name).write_bytes(name.encode())
    assert names(path) == ["a.mrxs", "a/Data0000.dat", "a/Slidedat.ini"]
    (folder / "Thumbs.db").write_bytes(b"of a file manager")
    assert names(path) == ["a.mrxs", "a/Data0000.dat", "a/Slidedat.ini"]
    (folder / "more").mkdir()
    with pytest.raises(NotStagedError, match="a/more of it is not a file"):
        slide_parts(path)


def test_a_dicom_slide_is_its_series(tmp_path: Path) -> None:
    first = write_slide(tmp_path, "a", RGB, "1.2.3")
    others = write_slide(tmp_path, "b", RGB, "1.2.4")
    (tmp_path / "notes.txt").write_text("of both")
    os.mkfifo(tmp_path / "pipe")
    assert sorted(names(first[-1])) == sorted(path.name for path in first)
    assert names(first[-1])[0] == first[-1].name
    assert sorted(names(others[0])) == sorted(path.name for path in others)


def test_links_are_followed(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    target = make_slide(tmp_path / "there" / "blob", width=300, height=200, downsamples=(1,))
    (tmp_path / "a.svs").symlink_to(target)
    (part,) = slide_parts(tmp_path / "a.svs")
    assert (part.name, part.num_bytes) == ("a.svs", target.stat().st_size)


def test_a_hamamatsu_index_is_not_staged(tmp_path: Path) -> None:
    (tmp_path / "a.vms").write_text("[Virtual Microscope Specimen]\nImageFile=a.jpg\n")
    with pytest.raises(NotStagedError, match="several files") as error:
        slide_parts(tmp_path / "a.vms")
    assert error.value.kind


def test_what_is_not_there_is_left_to_the_reader(tmp_path: Path) -> None:
    with pytest.raises(NotStagedError, match=r"^$"):
        slide_parts(tmp_path / "a.svs")
    (tmp_path / "b.svs").mkdir()
    with pytest.raises(NotStagedError, match="not a file"):
        slide_parts(tmp_path / "b.svs")
