"""Manifest rows from a folder of slides, and the manifest that is written of them."""

import os
from pathlib import Path

import pytest
from support.files import GDC_HEADER, gdc_line, put, touch, write

from pipeline.base.errors import G2LError, ManifestError
from pipeline.cohort.gdc import rows_from_gdc
from pipeline.cohort.manifest.read import read_manifest, write_manifest
from pipeline.cohort.sources import SlideList, list_folder, list_slides, make_manifest


def test_rows_from_folder(tmp_path: Path) -> None:
    tcga = "TCGA-3C-AALI-01Z-00-DX1.F6E9A5DF.svs"
    touch(tmp_path, tcga, "one/x.svs", "two/x.SVS", "two/y.ndpi", "z.mrxs", "z/Data0000.dcm", "z/Slidedat.ini")
    touch(tmp_path, ".hidden.svs", "._y.svs", ".cache/w.svs", "one/notes.txt", "TCGA-LUSC.svs", "TCGA-00-AAAA-01.svs")
    touch(tmp_path, "d/2.dcm", "d/1.dcm", "d/3.dcm")
    rows = {row.slide_id: row for row in list_folder(tmp_path).rows}
    assert sorted(rows) == list(rows)
    assert {row.slide_id: row.path for row in rows.values()} == {
        "TCGA-3C-AALI-01Z-00-DX1.F6E9A5DF": tcga,
        "TCGA-00-AAAA-01": "TCGA-00-AAAA-01.svs",
        "TCGA-LUSC": "TCGA-LUSC.svs",
        "one__x.svs": "one/x.svs",
        "two__x.SVS": "two/x.SVS",
        "y": "two/y.ndpi",
        "z": "z.mrxs",
        "1": "d/1.dcm",
    }
    known = rows["TCGA-3C-AALI-01Z-00-DX1.F6E9A5DF"]
    assert (known.case_id, known.center) == ("TCGA-3C-AALI", "Columbia University")
    assert (rows["TCGA-00-AAAA-01"].case_id, rows["TCGA-00-AAAA-01"].center) == ("TCGA-00-AAAA", None)
    assert rows["TCGA-LUSC"].case_id == "TCGA-LUSC"
    assert list_slides(tmp_path).rows == tuple(rows.values())

    path = tmp_path / "manifest.csv"
    write_manifest(path, rows.values())
    assert list(read_manifest(path).rows) == list(rows.values())


def test_folders_that_give_no_manifest(tmp_path: Path) -> None:
    touch(tmp_path, "a.txt")
    with pytest.raises(ManifestError, match=r"no slides below .*; looked for \.avs .*\.svs"):
        list_folder(tmp_path)
    with pytest.raises(ManifestError, match=r"cannot list the folder .*none: No such file"):
        list_folder(tmp_path / "none")
    with pytest.raises(ManifestError, match=r"cannot read .*none: No such file"):
        list_slides(tmp_path / "none")


def test_file_names_that_cannot_be_ids(tmp_path: Path) -> None:
    touch(tmp_path, " a.svs", "sub/b.svs", "a\tb.svs")
    with pytest.raises(ManifestError) as caught:
        list_folder(tmp_path)
    assert len(str(caught.value).splitlines()) == 3
    assert "the file name ' a.svs' starts or ends with a space" in str(caught.value)
    assert "does not print; rename it" in str(caught.value)


def test_folder_names_that_are_not_utf8(tmp_path: Path) -> None:
    try:
        os.mkdir(os.fsencode(tmp_path) + b"/caf\xe9")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    touch(tmp_path, os.fsdecode(b"caf\xe9/a.svs"))
    with pytest.raises(ManifestError, match="is not UTF-8; rename it"):
        list_folder(tmp_path)


def test_ids_from_clashing_names_may_clash_again(tmp_path: Path) -> None:
    touch(tmp_path, "a/b.svs", "c/b.svs", "a__b.svs.tif")
    with pytest.raises(ManifestError, match=r"slide_id 'a__b\.svs' is given for a__b\.svs\.tif, a/b\.svs"):
        list_folder(tmp_path)


def test_listing_takes_the_case_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "TCGA-3C-AALI").mkdir()
    (tmp_path / "TCGA-3C-AALI" / "1.svs").touch()
    (row,) = list_folder(tmp_path).rows
    assert (row.case_id, row.has_case, row.center) == ("TCGA-3C-AALI", True, "Columbia University")


def test_copies_of_two_cases_are_an_error(tmp_path: Path) -> None:
    for name in ("TCGA-3C-AALI-01.svs", "TCGA-A1-A0SB-01.svs"):
        put(tmp_path / name, b"one slide")
    with pytest.raises(
        ManifestError, match=r"TCGA-3C-AALI\) and .*A0SB\) are copies of one slide, named after different"
    ):
        list_slides(tmp_path)


def test_a_manifest_is_written_once_and_says_what_it_holds(tmp_path: Path) -> None:
    touch(tmp_path, "TCGA-3C-AALI-01Z-00-DX1.svs", "TCGA-3C-AALK-01Z-00-DX1.svs", "x.svs", ".hidden.svs")
    out = tmp_path / "out" / "m.csv"
    out.parent.mkdir()
    first, *more = make_manifest(tmp_path, out)
    assert first == f"{out}: 3 slides of 2 cases (of 1 slide not known) and 1 centre; paths are relative to {tmp_path}"
    assert [line.split(":")[0] for line in more] == ["warning"]
    assert list(read_manifest(out, tmp_path).rows) == list(list_folder(tmp_path).rows)
    with pytest.raises(G2LError, match=r"m\.csv exists.*choose another --out"):
        make_manifest(tmp_path, out)


def test_a_list_of_the_gdc_starts_at_its_own_folder(tmp_path: Path) -> None:
    tsv = write(tmp_path, GDC_HEADER + gdc_line("TCGA-3C-AALI-01Z-00-DX1.F6E9.svs"), "gdc.txt")
    assert list_slides(tsv) == SlideList(tuple(rows_from_gdc(tsv)), tmp_path)


def test_frozen_sections_beside_diagnostic_slides_are_warned_of(tmp_path: Path) -> None:
    touch(tmp_path, "TCGA-3C-AALI-01Z-00-DX1.svs", "TCGA-3C-AALI-01A-01-TS1.svs", "tcga-3c-aalk-01a-02-bsb.AB.svs")
    touch(tmp_path, "scan-TS1.svs")
    (line,) = [line for line in make_manifest(tmp_path, tmp_path / "m.csv") if "frozen sections" in line]
    assert line.startswith("warning: 2 of the slides are frozen sections (BS, TS in the name) beside 1 diagnostic")
    (tmp_path / "TCGA-3C-AALI-01A-01-TS1.svs").unlink()
    (tmp_path / "tcga-3c-aalk-01a-02-bsb.AB.svs").unlink()
    assert not [line for line in make_manifest(tmp_path, tmp_path / "n.csv") if "frozen sections" in line]
