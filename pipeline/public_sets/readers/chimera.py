"""Read CHIMERA, task 1: biochemical recurrence (BCR) after prostatectomy.

`clinical_data/PATIENT.json` has BCR, 1 or 0; `pathology/images/PATIENT/PATIENT_SCAN.tif` are the patient's slides, with
`..._tissue.tif` masks beside them. The label is whether the patient had a recurrence, at whatever time: censoring is
not taken into account. What is scored are feature files that the user has made of the slides. There is one centre.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from pipeline.base.errors import BenchmarkError
from pipeline.base.outside import read_json, reading
from pipeline.public_sets.members import Members, Row, first_folder, images_below, require_members, unparsed
from pipeline.report.content import Exclusion

SLIDE = re.compile(r"(?P<patient>\w+)/(?P<slide>(?P=patient)_\d+)\.tif", re.ASCII)
MASK = "_tissue.tif"
LABEL_OF_BCR = {0.0: "no recurrence", 1.0: "recurrence"}
MOST_RECORD_BYTES = 1 << 20
"""1 MiB, of a patient's record. Our choice: they have some twenty fields."""


def read_members(root: Path, _images: Path, _options: Mapping[str, str]) -> Members:
    """The slides: case and label.

    Raises:
        BenchmarkError: a part of the set is missing, or there are no slides.
    """
    task = first_folder(root, ("task1/pathology/images", "pathology/images"), "task 1 of CHIMERA").parents[1]
    clinical = first_folder(task, ("clinical_data",), "task 1 of CHIMERA")
    rows: list[Row] = []
    left_out: list[Exclusion] = []
    labels: dict[str, tuple[str, str]] = {}
    for path in images_below(task / "pathology/images", left_out, (".tif",)):
        if path.name.endswith(MASK):
            continue
        if (match := SLIDE.fullmatch(str(path))) is None:
            left_out.append(unparsed(path, "PATIENT/PATIENT_SCAN.tif"))
            continue
        patient = match["patient"]
        if patient not in labels:
            labels[patient] = _label(clinical / f"{patient}.json")
        label, why_none = labels[patient]
        if why_none:
            left_out.append(Exclusion(str(path), why_none))
        else:
            rows.append({"slide_id": match["slide"], "case_id": patient, "label": label})
    return require_members(Members(tuple(rows), None, tuple(left_out)), task, "slide with a label")


def _label(path: Path) -> tuple[str, str]:
    """The label of a patient's record, and why there is none."""
    try:
        with reading(path.name, "no usable record", BenchmarkError):
            return LABEL_OF_BCR[float(read_json(path, MOST_RECORD_BYTES)["BCR"])], ""
    except BenchmarkError as error:
        return "", str(error)
