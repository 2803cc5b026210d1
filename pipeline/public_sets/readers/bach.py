"""Read BACH: microscopic fields of breast tissue in four classes (ICIAR 2018).

`ICIAR2018_BACH_Challenge/Photos/Benign/b001.tif`, `InSitu/is001.tif`, `Invasive/iv001.tif`, `Normal/n001.tif`, numbers
1 to 100. The names give neither patient nor centre. The split is kaiko-eva's, which was chosen so that no patient is on
both sides (`eva/vision/data/datasets/classification/bach.py`): ranges of the 400 images in the order of their names;
its `val` is what eva scores, and is `test` here.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from pipeline.public_sets.members import Members, Row, first_folder, images_below, require_members, unparsed
from pipeline.report.content import Exclusion

PREFIXES = {"Benign": "b", "InSitu": "is", "Invasive": "iv", "Normal": "n"}
"""Letters that the files of each class begin with, in the order of the folders' names."""
LABELS = {"Benign": "benign", "InSitu": "in situ", "Invasive": "invasive", "Normal": "normal"}
PLACE = re.compile(r"(?P<folder>[A-Za-z]+)/(?P<prefix>[a-z]+)(?P<number>\d{3})\.tif", re.ASCII)
EXPECTED = "Benign/bNNN.tif, InSitu/isNNN.tif, Invasive/ivNNN.tif or Normal/nNNN.tif, from 001 to 100"
PER_CLASS = 100
SCORED_BY_EVA = ((41, 59), (60, 90), (139, 169), (240, 258), (260, 273), (345, 368))
"""eva's ranges of `val`, each from the first to before the last, of 0 to 399."""


def read_members(root: Path, _images: Path, _options: Mapping[str, str]) -> Members:
    """The fields: label and eva's split.

    Raises:
        BenchmarkError: there are none, or a folder cannot be listed.
    """
    folder = first_folder(root, ("ICIAR2018_BACH_Challenge/Photos", "Photos", "Benign"), "BACH")
    folder = folder.parent if folder.name == "Benign" else folder
    rows: list[Row] = []
    left_out: list[Exclusion] = []
    for path in images_below(folder, left_out, (".tif", ".tiff")):
        match = PLACE.fullmatch(str(path))
        if match is None or PREFIXES.get(match["folder"]) != match["prefix"] or not 0 < int(match["number"]) <= 100:
            left_out.append(unparsed(path, EXPECTED))
        else:
            split = split_of(match["folder"], int(match["number"]))
            rows.append({"path": str(path), "label": LABELS[match["folder"]], "split": split})
    return require_members(Members(tuple(rows), folder, tuple(left_out)), folder, "field of BACH")


def split_of(folder: str, number: int) -> str:
    """eva's side of an image: `train`, or `test` for its `val`."""
    place = PER_CLASS * list(PREFIXES).index(folder) + number - 1
    return "test" if any(first <= place < end for first, end in SCORED_BY_EVA) else "train"
