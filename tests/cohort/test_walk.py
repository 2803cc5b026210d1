"""The slides below a folder, each once, and what is said of the files that were skipped."""

from pathlib import Path

import openslide
import pytest
from support.dicom import CT_CLASS, MPP, RGB, write_instance, write_slide
from support.files import put
from support.slides import make_pixels

from pipeline.cohort.sources import list_slides


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
    for words in ("4 DICOM files of kind label", "3 DICOM files of kind overview", "1 DICOM file of no slide",
                  "3 further DICOM files of listed series", "1 DICOM file without a header"):  # fmt: skip
        assert words in note
    for row in listed.rows[:2]:
        slide = openslide.OpenSlide(flat / row.path)
        assert slide.level_dimensions == ((300, 260), (150, 130))
        assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(MPP)
