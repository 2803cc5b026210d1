"""Read the patches of invasive ductal carcinoma (IDC) of 50 px, as Kaggle has them.

A folder a patient, in it `0` (no IDC) and `1` (IDC), in these `8863_idx5_x51_y1251_class0.png`: the patient's slide,
the place of the patch, and the class again. Kaggle's archive holds all of it twice: `IDC_regular_ps50_idx5` beside the
patients' folders. The set gives no centre and no split.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from pipeline.base.console import counted
from pipeline.public_sets.members import Members, Row, first_folder, images_below, require_members, unparsed
from pipeline.report.content import Exclusion

COPY = "IDC_regular_ps50_idx5"
"""Folder of the archive that holds the patients, in some releases as a copy."""
PLACE = re.compile(r"(?P<patient>\d+)/(?P<label>[01])/(?P=patient)_idx\d+_x\d+_y\d+_class(?P=label)\.png", re.ASCII)
LABELS = {"0": "no IDC", "1": "IDC"}
EXPECTED = "PATIENT/CLASS/PATIENT_idxN_xX_yY_classCLASS.png, with class 0 or 1"


def read_members(root: Path, _images: Path, _options: Mapping[str, str]) -> Members:
    """The patches: label and case.

    Raises:
        BenchmarkError: there are none, or a folder cannot be listed.
    """
    folder = first_folder(root, (".",), "the patients of IDC")
    is_split = any(entry.name.isdigit() for entry in folder.iterdir() if entry.is_dir())
    folder = folder if is_split else first_folder(root, (COPY,), "the patients of IDC")
    rows: list[Row] = []
    left_out: list[Exclusion] = []
    num_copies = 0
    for path in images_below(folder, left_out):
        if path.parts[0] == COPY:
            num_copies += 1
        elif match := PLACE.fullmatch(str(path)):
            rows.append({"path": str(path), "label": LABELS[match["label"]], "case_id": match["patient"]})
        else:
            left_out.append(unparsed(path, EXPECTED))
    copies = f"passed over, as the archive's second copy: {counted(num_copies, 'image')} in {COPY}"
    notes = [copies] if num_copies else []
    return require_members(Members(tuple(rows), folder, tuple(left_out), tuple(notes)), folder, "patch of IDC")
