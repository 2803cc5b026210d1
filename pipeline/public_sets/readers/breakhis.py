"""Read BreakHis: microscopic fields of breast tumours at four magnifications.

`BreaKHis_v1/histology_slides/breast/CLASS/SOB/TYPE/SLIDE/40X/SOB_B_A-14-22549AB-40-001.png`: biopsy procedure, benign
or malignant, type of tumour, year and number of the specimen, magnification, number of the field. Letters after the
number tell parts of one specimen apart (22549AB, 22549CD): they are slides of one case. The set has no centre; its
folds are not read.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from pipeline.base.errors import BenchmarkError
from pipeline.public_sets.members import Members, Row, first_folder, images_below, require_members, unparsed
from pipeline.report.content import Exclusion

PLACE = re.compile(
    r"(?:.*/)?(?P<zoom>40|100|200|400)X/"
    r"SOB_(?P<side>[BM])_(?P<kind>[A-Z]+)-(?P<year>\d+)-(?P<number>\d+)(?P<part>[A-Z]*)-(?P=zoom)-\d+\.png",
    re.ASCII,
)
EXPECTED = "ZOOMX/SOB_SIDE_TYPE-YEAR-NUMBER-ZOOM-FIELD.png"
TUMOUR_TYPES = {
    "A": "adenosis",
    "F": "fibroadenoma",
    "PT": "phyllodes tumour",
    "TA": "tubular adenoma",
    "DC": "ductal carcinoma",
    "LC": "lobular carcinoma",
    "MC": "mucinous carcinoma",
    "PC": "papillary carcinoma",
}
"""Types of tumour; the first four are benign."""
SIDES = {kind: "B" if place < 4 else "M" for place, kind in enumerate(TUMOUR_TYPES)}
MAGNIFICATIONS = ("40X", "100X", "200X", "400X")


def read_members(root: Path, _images: Path, options: Mapping[str, str]) -> Members:
    """The fields of one magnification: type of tumour, case and slide.

    Args:
        options: `magnification`, one of `MAGNIFICATIONS`.

    Raises:
        BenchmarkError: there are none, or a folder cannot be listed.
    """
    wanted = options["magnification"]
    if wanted not in MAGNIFICATIONS:
        raise BenchmarkError(f"magnification {wanted} of BreakHis is none of {', '.join(MAGNIFICATIONS)}")
    candidates = ("BreaKHis_v1/histology_slides", "histology_slides", "breast/benign", "benign")
    found = first_folder(root, candidates, "BreakHis")
    folder = found.parent if found.name == "benign" else found
    rows: list[Row] = []
    left_out: list[Exclusion] = []
    for path in images_below(folder, left_out):
        match = PLACE.fullmatch(str(path))
        if match is None or SIDES.get(match["kind"]) != match["side"]:
            left_out.append(unparsed(path, EXPECTED))
        elif f"{match['zoom']}X" == wanted:
            case = f"{match['year']}-{match['number']}"
            label = TUMOUR_TYPES[match["kind"]]
            rows.append({"path": str(path), "label": label, "case_id": case, "slide_id": case + match["part"]})
    return require_members(Members(tuple(rows), folder, tuple(left_out)), folder, f"field at {wanted}")
