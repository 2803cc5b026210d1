"""Read the regions of interest (RoIs) of BRACS.

`BRACS_RoI/latest_version/train/0_N/BRACS_264_N_5.png`: the set's split, the class as a number and in letters, and
the slide, the class again and the number of the RoI. Patients are in BRACS.xlsx, which is not read: slides keep RoIs
together, and the split is the set's own. There is one centre.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from pipeline.public_sets.members import Members, Row, first_folder, images_below, require_members, unparsed
from pipeline.report.content import Exclusion

LABELS = {
    "N": "normal",
    "PB": "pathological benign",
    "UDH": "usual ductal hyperplasia",
    "FEA": "flat epithelial atypia",
    "ADH": "atypical ductal hyperplasia",
    "DCIS": "ductal carcinoma in situ",
    "IC": "invasive carcinoma",
}
"""Classes, in the order of their folders' numbers."""
PLACE = re.compile(
    r"(?P<split>train|val|test)/(?P<place>\d)_(?P<label>[A-Z]+)/BRACS_(?P<slide>\d+)_(?P=label)_\d+\.png", re.ASCII
)
EXPECTED = "SPLIT/N_CLASS/BRACS_SLIDE_CLASS_NUMBER.png"


def read_members(root: Path, _images: Path, _options: Mapping[str, str]) -> Members:
    """The RoIs: label, slide and split.

    Raises:
        BenchmarkError: there are none, or a folder cannot be listed.
    """
    candidates = ("BRACS_RoI/latest_version", "latest_version", "train")
    folder = first_folder(root, candidates, "the RoIs of BRACS")
    folder = folder.parent if folder.name == "train" else folder
    rows: list[Row] = []
    left_out: list[Exclusion] = []
    for path in images_below(folder, left_out):
        match = PLACE.fullmatch(str(path))
        if match is None or match["label"] not in LABELS or match["place"] != place_of(match["label"]):
            left_out.append(unparsed(path, EXPECTED))
        else:
            label, slide = LABELS[match["label"]], f"BRACS_{match['slide']}"
            rows.append({"path": str(path), "label": label, "slide_id": slide, "split": match["split"]})
    return require_members(Members(tuple(rows), folder, tuple(left_out)), folder, "RoI of BRACS")


def place_of(label: str) -> str:
    """The number of a class's folder."""
    return str(list(LABELS).index(label))
