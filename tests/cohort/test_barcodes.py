"""Barcodes of TCGA in names: found as people write them, and never guessed."""

import pytest

from pipeline.cohort.barcodes import Barcode, barcode_of_path, barcodes_in, find_barcode, without_uuid


@pytest.mark.parametrize(
    "name",
    [
        "TCGA-3C-AALI-01Z-00-DX1.F6E9.svs",
        "tcga-3c-aali-01z.svs",
        "BRCA_TCGA-3C-AALI-01A.svs",
        "Tcga-3C-aali.svs",
        "20x TCGA-3C-AALI.svs",
        "brcaTCGA-3C-AALI.svs",
        "20xTCGA-3C-AALI01A.svs",
        "TCGA-3C-AALI01_DX1",
        "ÄTCGA-3C-AALIé",
        "TCGA.3C.AALI.01Z.svs",
        "brca_TCGA_3C_AALI_01.svs",
        "TCGA-3C-AALI_vs_TCGA-3C-AALI-01",
        *(
            f"TCGA{dash}3C{dash}AALI{dash}01Z.svs"
            for dash in "\u2010\u2011\u2012\u2013\u2014\u2015\u2212\ufe58\ufe63\uff0d"
        ),
        "TCGA\u20133C-AALI.svs",
        "\uff34\uff23\uff27\uff21\uff0d3C\uff0dAALI",
        "TCGA-3C_AALI-01.svs",
        "TCGA - 3C - AALI - 01Z",
        "TCGA--3C--AALI.svs",
        "TCGA-3C--AALI_1.svs",
    ],
)
def test_barcodes_are_found_wherever_they_stand_in_a_name(name: str) -> None:
    assert find_barcode(name) == Barcode("TCGA-3C-AALI", "3C")


@pytest.mark.parametrize(
    "name",
    [
        "TCGA-LUSC.svs",
        "TCGA-3C-AALI012",
        "TCGA-3C-AALIX",
        "TCGA-3C_AALI",
        "TCGA-3C-AALI_TCGA-A1-A0SB",
        "TCGA3CAALI",
        "TCGA-LU_scan.svs",
        "TCGA3C-AALI-01",
        "TCGA-LU_scanner-01",
        "TCGA\u20133C\u2013AALI vs TCGA-A1-A0SB",
    ],
)
def test_what_is_no_barcode(name: str) -> None:
    assert find_barcode(name) is None


def test_barcodes_of_several_cases_are_all_found() -> None:
    found = barcodes_in("TCGA-3C-AALI-01Z_vs_TCGA-3C-AALJ, tcga-3c-aali")
    assert found == {Barcode("TCGA-3C-AALI", "3C"), Barcode("TCGA-3C-AALJ", "3C")}
    assert barcodes_in("TCGA-3C") == set()


def test_a_barcode_may_be_a_folder_s() -> None:
    assert barcode_of_path(("TCGA-A1-A0SB", "TCGA-3C-AALI", "1.svs")) == Barcode("TCGA-3C-AALI", "3C")
    assert barcode_of_path(("TCGA\u2013A1\u2013A0SB", "1.svs")) == Barcode("TCGA-A1-A0SB", "A1")
    assert barcode_of_path(("TCGA-A1-A0SB", "TCGA-3C-AALI.svs")) == Barcode("TCGA-3C-AALI", "3C")


def test_the_uuid_is_what_stands_behind_a_barcode() -> None:
    barcode, uuid = "TCGA-3C-AALI-01Z-00-DX1", "F6E9A5DF-D8FB-45CF-B4BD-C6B76294C291"
    assert without_uuid(f"{barcode}.{uuid}") == without_uuid(f"{barcode}.{uuid.lower()}") == barcode
    for other in (barcode, f"slide.{uuid}", f"{barcode}.{uuid[:-1]}", f"{barcode}.{uuid}.v2", f"{barcode}-{uuid}"):
        assert without_uuid(other) == other
