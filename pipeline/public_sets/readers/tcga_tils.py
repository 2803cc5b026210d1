"""Read TCGA-TILs: patches of 100 px with or without tumour-infiltrating lymphocytes, of 23 cancers.

`images-tcga-tils-metadata.csv` lists partition, study, barcode, label, path and md5 of each patch; the paths lead to
`images-tcga-tils/STUDY/PARTITION/LABEL/BARCODE_MD5.png` beside it. Case and centre (the tissue source site) are from
the barcode. The md5 of a patch is not checked: an image that cannot be decoded is found by `evaluate`.
"""

from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from pipeline.base.errors import BenchmarkError, ManifestError
from pipeline.cohort.barcodes import find_barcode
from pipeline.cohort.gdc import source_sites
from pipeline.disk.tables import Record, read_table, refuse
from pipeline.public_sets.members import Members, Row, first_folder, require_members
from pipeline.report.content import Exclusion

LIST_OF_TILS = "images-tcga-tils-metadata.csv"
COLUMNS_OF_TILS = ("partition", "study", "barcode", "label", "path")
LABEL_WORDS = {"til-negative": "no TILs", "til-positive": "TILs"}
PARTITIONS = ("train", "val", "test")
IMAGES = "images-tcga-tils"


def read_members(root: Path, _images: Path, options: Mapping[str, str]) -> Members:
    """The patches of one study: label, case, centre and split.

    Args:
        options: `study`, a cancer in TCGA's short form, or `pancancer`.

    Raises:
        BenchmarkError: the list of patches is missing or damaged, or has none of the study.
    """
    folder = first_folder(root, (f"TCGA-TILs/{IMAGES}", IMAGES), "TCGA-TILs").parent
    records = _records(folder / LIST_OF_TILS)
    studies = sorted({cells["study"] for _, cells in records})
    if options["study"] not in studies:
        raise BenchmarkError(f"{folder / LIST_OF_TILS} has no study {options['study']}; it has {', '.join(studies)}")
    rows: list[Row] = []
    left_out: list[Exclusion] = []
    for line, cells in records:
        if cells["study"] == options["study"]:
            if problem := _problem(folder, cells):
                left_out.append(Exclusion(cells["path"], f"{problem} (line {line} of {LIST_OF_TILS})"))
            else:
                rows.append(_row(cells))
    return require_members(Members(tuple(rows), folder, tuple(left_out)), folder, "patch of TCGA-TILs")


def _records(path: Path) -> list[Record]:
    """The lines of the set's list of patches.

    Raises:
        BenchmarkError: it is missing or damaged.
    """
    try:
        records, problems = read_table(path, COLUMNS_OF_TILS, ",")
        refuse(path, problems)
    except ManifestError as error:
        raise BenchmarkError(str(error)) from None
    return records


def _problem(folder: Path, cells: Mapping[str, str]) -> str:
    """Why a line cannot be used; "" if it can."""
    place = PurePosixPath(cells["path"])
    if cells["label"] not in LABEL_WORDS or cells["partition"] not in PARTITIONS:
        return f"label {cells['label']!r} in partition {cells['partition']!r} is none that the set documents"
    if place.parts[:-1] != (IMAGES, cells["study"], cells["partition"], cells["label"]):
        return "the path disagrees with study, partition or label"
    barcode = find_barcode(cells["barcode"])
    if barcode is None or not place.name.startswith(cells["barcode"]):
        return f"{cells['barcode']!r} is no TCGA barcode, or not that of the file"
    return "" if (folder / place).is_file() else "there is no such file"


def _row(cells: Mapping[str, str]) -> Row:
    """The row of a line without a problem."""
    barcode = find_barcode(cells["barcode"])
    assert barcode is not None
    return {
        "path": cells["path"],
        "label": LABEL_WORDS[cells["label"]],
        "case_id": barcode.case_id,
        "center": source_sites().get(barcode.site, ""),
        "split": cells["partition"],
    }
