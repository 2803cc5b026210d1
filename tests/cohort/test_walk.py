"""The slides below a folder, each once, and what is said of the files that were skipped."""

import os
from collections import Counter
from pathlib import Path, PurePosixPath

import openslide
import pytest
from support.dicom import CT_CLASS, MPP, RGB, write_instance, write_slide
from support.files import put, touch
from support.slides import make_pixels

from pipeline.base.errors import ManifestError
from pipeline.cohort.sources import list_slides
from pipeline.cohort.walk import MAX_NAMED, dicom_slides, passed_over, slide_paths


def test_three_series_in_one_flat_folder_are_three_slides(tmp_path: Path) -> None:
    flat = tmp_path / "flat"
    for number, name in enumerate("abc"):
        write_slide(flat, name, make_pixels("tissue", 300, 260, seed=number), f"1.2.3.{number}")
    write_instance(flat / "ct.dcm", RGB, "1.2.9", 1, sop_class=CT_CLASS)
    write_instance(flat / "only label.dcm", RGB, "1.2.8", 1, kind="LABEL")
    put(flat / "broken.dcm", b"no header")
    put(flat / "broken2.dcm", b"no header either")
    listed = list_slides(flat)
    assert [row.path for row in listed.rows] == ["a-2.dcm", "b-2.dcm", "broken.dcm", "c-2.dcm"]
    (note,) = listed.notes
    for words in (
        "4 DICOM files of kind label",
        "3 DICOM files of kind overview",
        "1 DICOM file of no slide",
        "3 further DICOM files of listed series",
        "1 DICOM file without a header",
    ):
        assert words in note
    for row in listed.rows[:2]:
        slide = openslide.OpenSlide(flat / row.path)
        assert slide.level_dimensions == ((300, 260), (150, 130))
        assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(MPP)


def test_slides_are_listed_in_walking_order_whatever_the_disk_s(tmp_path: Path) -> None:
    touch(tmp_path, "b.svs", "a.TIFF", "z/c.ndpi", "y/x/d.bif", "notes.txt", ".hidden.svs", ".cache/e.svs")
    paths, notes = slide_paths(tmp_path)
    assert [str(path) for path in paths] == ["a.TIFF", "b.svs", "y/x/d.bif", "z/c.ndpi"]
    assert notes == []


def test_a_slide_s_data_folder_is_passed_over_and_another_is_not(tmp_path: Path) -> None:
    touch(tmp_path, "a.mrxs", "a/Data0001.dcm", "a/b.tif", "c/a/d.tif")
    assert [str(path) for path in slide_paths(tmp_path)[0]] == ["a.mrxs", "c/a/d.tif"]


def test_of_a_file_and_its_links_the_file_is_kept(tmp_path: Path) -> None:
    """Whichever comes first by name; a link that leads nowhere stays, to fail by name when it is read."""
    touch(tmp_path, "m.svs", "elsewhere.txt")
    (tmp_path / "a.svs").symlink_to("m.svs")
    os.link(tmp_path / "m.svs", tmp_path / "z.svs")
    (tmp_path / "broken.svs").symlink_to("none.svs")
    (tmp_path / "sub").symlink_to(tmp_path, target_is_directory=True)
    paths, notes = slide_paths(tmp_path)
    assert [str(path) for path in paths] == ["broken.svs", "m.svs"]
    assert notes == ["skipped: 2 links to listed slides: a.svs (m.svs), z.svs (m.svs)", "skipped: 1 link to folders"]


def test_a_folder_that_cannot_be_listed_is_named(tmp_path: Path) -> None:
    touch(tmp_path, "file")
    with pytest.raises(ManifestError, match=r"cannot list the folder .*none: No such file"):
        slide_paths(tmp_path / "none")
    with pytest.raises(ManifestError, match=r"cannot list the folder .*file: Not a directory"):
        slide_paths(tmp_path / "file")


def test_a_series_without_a_level_is_no_slide(tmp_path: Path) -> None:
    """And of a series with levels, the first of them stands for it."""
    for number, (name, kind) in enumerate([("a", "LABEL"), ("b", "VOLUME"), ("c", "VOLUME"), ("d", "OVERVIEW")]):
        write_instance(tmp_path / f"{name}.dcm", RGB[:50, :50], "1.2.3", number, kind=kind)
    write_instance(tmp_path / "e.dcm", RGB[:50, :50], "1.2.4", 1, kind="THUMBNAIL")
    counts: Counter[tuple[str, str]] = Counter()
    files = [PurePosixPath(path.name) for path in sorted(tmp_path.iterdir())]
    assert dicom_slides(tmp_path, files, counts) == {PurePosixPath("b.dcm")}
    assert counts == {
        ("DICOM file", "of kind label"): 1,
        ("DICOM file", "of kind overview"): 1,
        ("DICOM file", "of kind thumbnail"): 1,
        ("further DICOM file", "of listed series"): 1,
    }


def test_a_note_names_the_first_few() -> None:
    dropped = {PurePosixPath(f"{i}.svs"): PurePosixPath("kept.svs") for i in range(MAX_NAMED + 1200)}
    (note,) = passed_over(dropped, "copy", "copies")
    assert note.startswith("skipped: 1,205 copies: 0.svs (kept.svs), 1.svs (kept.svs), ")
    assert note.endswith(f"{MAX_NAMED - 1}.svs (kept.svs) and 1,200 more")
    assert passed_over({}, "copy", "copies") == []


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes of POSIX")
def test_pipes_are_not_opened(tmp_path: Path) -> None:
    """Nobody writes into them: who opens one to read waits for ever."""
    for name in ("a.svs", "b.dcm", "c.tiff", "d.txt"):
        os.mkfifo(tmp_path / name)
    (tmp_path / "broken.svs").symlink_to("nowhere.svs")
    paths, notes = slide_paths(tmp_path)
    assert [str(path) for path in paths] == ["broken.svs"]  # it fails by name when it is read
    assert notes == ["skipped: 3 special files (pipe, socket or device)"]
