"""Read labels of TCGA slides from a manifest of this project, such as `data_manifests/tcga_brca.csv`.

A row a slide: slide_id, case_id, center and the label's column. Cases without a status are left out by rule. What is
scored are feature files that the user has made of the slides (`g2l embed`, or another tool).
"""

from collections.abc import Mapping
from pathlib import Path

from pipeline.base.errors import BenchmarkError, ManifestError
from pipeline.cohort.manifest.read import id_trouble
from pipeline.disk.label_words import cell_value
from pipeline.disk.tables import read_table, refuse
from pipeline.public_sets.members import Members, Row, require_members
from pipeline.report.content import Exclusion


def read_members(root: Path, _images: Path, options: Mapping[str, str]) -> Members:
    """The slides: case, centre and label.

    Args:
        options: `manifest`, the file's name below `root`; `label`, its column.

    Raises:
        BenchmarkError: the manifest is missing or damaged.
    """
    path, label = root / options["manifest"], options["label"]
    try:
        records, problems = read_table(path, ("slide_id", "case_id", "center", label), ",")
        refuse(path, problems)
    except ManifestError as error:
        raise BenchmarkError(str(error)) from None
    rows: list[Row] = []
    left_out: list[Exclusion] = []
    for line, record in records:
        slide, case, status = record["slide_id"], record["case_id"].strip(), cell_value(record[label])
        if (trouble := id_trouble(slide)) or not cell_value(case):
            why = f"slide_id {slide!r} {trouble}" if trouble else "case_id is empty"
            left_out.append(Exclusion(slide.strip() or case, f"{why} (line {line})"))
        elif not status:
            left_out.append(Exclusion(slide, f"{label} of the case is not known", by_rule=True))
        else:
            rows.append({"slide_id": slide, "case_id": case, "center": record["center"], "label": status})
    return require_members(Members(tuple(rows), None, tuple(left_out)), path, "slide with a label")
