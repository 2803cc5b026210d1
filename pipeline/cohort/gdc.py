"""Rows of a manifest from the Genomic Data Commons (GDC): its download manifest, or its answer to a query for slides.

The query is `data_manifests/gdc_query.json`; `data_manifests/README.md` says how it is sent. Its answer (TSV) also
gives the project, the sample's type, the kind of slide, and the case of slides that have no TCGA barcode. Left out:
sending queries and downloading; nothing here uses a network.
"""

import csv
import functools
import io
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from importlib import resources
from pathlib import Path

from pipeline.base.errors import ManifestError
from pipeline.cohort.barcodes import Barcode, find_barcode
from pipeline.cohort.manifest.checks import repeated_ids
from pipeline.cohort.manifest.read import id_trouble
from pipeline.cohort.manifest.rows import ManifestRow
from pipeline.cohort.walk import SLIDE_SUFFIXES
from pipeline.disk.label_words import cell_value, is_unknown
from pipeline.disk.tables import Problem, Record, read_table, refuse

GDC_COLUMNS = ("id", "filename", "md5", "size")
"""Of a download manifest: docs.gdc.cancer.gov/Encyclopedia/pages/Manifest_File; its `state` is not needed."""
ANSWER_COLUMNS = ("file_id", "file_name", "md5sum", "file_size")
"""The same in the answer to a query of the `files` endpoint, in the same order:
docs.gdc.cancer.gov/API/Users_Guide/Search_and_Retrieval.
"""
ANSWER_LABELS = {
    "project": "cases.0.project.project_id",
    "sample_type": "cases.0.samples.0.sample_type",
    "slide_type": "experimental_strategy",
}
"""Labels of a manifest and the columns of an answer that give them. The numbers count a file's cases, and a case's
samples.
"""
ANSWER_CASE = "cases.0.submitter_id"
SECOND_CASE = re.compile(r"cases\.[1-9][0-9]*\.submitter_id")
MD5 = re.compile(r"[0-9a-f]{32}")
"""In lower case; anything else in the column says nothing of the file."""
SITES_FILE = "tcga_source_sites.csv"


def rows_from_gdc(tsv: Path) -> list[ManifestRow]:
    """One row for each slide of a GDC list, sorted by `slide_id`: a download manifest (TSV: id, filename, md5, size),
    or the answer to a query (TSV: file_id, file_name, md5sum, file_size, and what else was asked for).

    Paths are `id/filename`, as gdc-client stores files. The slide's id is the file name up to the first dot, or its
    whole stem if that clashes. Labels: site (its code), file_name, gdc_id, md5, bytes; of an answer also project,
    sample_type and slide_type, where it has them. The case is the barcode's, or the answer's where no barcode is in the
    file's name.

    Raises:
        ManifestError: it is not such a file, or lists a file that is not a slide, is of no case, of several or of
            another than its name says, is from an unknown site, or has a name or id that leads to another folder; or
            one md5 is of several cases.
    """
    is_answer = _is_answer(tsv)
    records, problems = read_table(tsv, ANSWER_COLUMNS if is_answer else GDC_COLUMNS, "\t")
    if is_answer:
        records = [_like_a_manifest(record) for record in records]
    num_same = Counter(_short_name(record["filename"]) for _, record in records)
    rows = []
    for line, record in records:
        barcode = find_barcode(record["filename"])
        if trouble := next(filter(None, (check(record, barcode) for check in CHECKS)), None):
            problems.append((line, trouble))
            continue
        row = _row(line, record, barcode, is_unique=num_same[_short_name(record["filename"])] == 1)
        if trouble := id_trouble(row.slide_id):
            problems.append((line, f"slide_id {row.slide_id!r} {trouble}"))
        rows.append(row)
    refuse(tsv, problems + repeated_ids(rows) + _files_of_several_cases(rows))
    return sorted(rows, key=lambda row: row.slide_id)


@functools.cache
def source_sites() -> Mapping[str, str]:
    """TCGA source site code to centre; gdc.cancer.gov/resources-tcga-users/tcga-code-tables."""
    text = resources.files("pipeline").joinpath("data", SITES_FILE).read_text("utf-8")
    return {record["code"]: record["center"] for record in csv.DictReader(io.StringIO(text))}


def kinds_of_samples(rows: Iterable[ManifestRow]) -> str:
    """A note on the projects, types of samples and kinds of slides that an answer gave; empty if it gave none."""
    counts = [
        ", ".join(f"{number} {value}" for value, number in Counter(values).most_common())
        for label in ANSWER_LABELS
        if (values := [row.labels[label] for row in rows if row.labels.get(label)])
    ]
    return f"by the GDC: {'; '.join(counts)}" if counts else ""


def _is_answer(tsv: Path) -> bool:
    """Whether a list has a column of an answer; false for what is no table, which is told when it is read."""
    try:
        records, _ = read_table(tsv, (), "\t")
    except ManifestError:
        return False
    return any(column in record for _, record in records[:1] for column in ANSWER_COLUMNS)


def _like_a_manifest(record: Record) -> Record:
    """A record of an answer, with the columns of a download manifest under their names."""
    line, cells = record
    return line, cells | dict(zip(GDC_COLUMNS, (cells[column] for column in ANSWER_COLUMNS), strict=True))


def _short_name(filename: str) -> str:
    return filename.split(".")[0]


def _row(line: int, record: Mapping[str, str], barcode: Barcode | None, *, is_unique: bool) -> ManifestRow:
    """The row of a record that has no trouble; `is_unique`: no other file's name is the same up to the first dot."""
    name = record["filename"]
    labels = {"site": barcode.site} if barcode else {}
    labels |= {"file_name": name, "gdc_id": record["id"], "md5": record["md5"], "bytes": record["size"]}
    labels |= {label: record[column] for label, column in ANSWER_LABELS.items() if column in record}
    return ManifestRow(
        _short_name(name) if is_unique else Path(name).stem,
        f"{record['id']}/{name}",
        barcode.case_id if barcode else record[ANSWER_CASE],
        source_sites()[barcode.site] if barcode else None,
        labels=labels,
        line=line,
    )


def _missing_cells(record: Mapping[str, str], barcode: Barcode | None) -> str:
    without = [column for column in ("id", "filename") if is_unknown(record[column])]
    return f"no {' and no '.join(without)}; remove the line" if without else ""


def _unsafe_names(record: Mapping[str, str], _barcode: Barcode | None) -> str:
    """Why `id/filename` is not a file in a folder of its own: a slash, `..` or a dot would lead elsewhere."""
    for column in ("id", "filename"):
        if trouble := id_trouble(record[column]):
            return f"{column} {record[column]!r} {trouble}"
        if ".." in record[column]:
            return f"{column} {record[column]!r} has two dots in a row"
    return ""


def _files_of_several_cases(rows: Iterable[ManifestRow]) -> list[Problem]:
    """Files that are listed for two cases, by their md5: one of the cases is wrong."""
    first: dict[str, ManifestRow] = {}
    problems = []
    for row in rows:
        md5 = row.labels["md5"].strip().lower()
        other = first.setdefault(md5, row) if MD5.fullmatch(md5) else row
        if other.case_id != row.case_id:
            cases = f"{other.case_id} (line {other.line}) and of {row.case_id}"
            problems.append((row.line, f"md5 {md5} is of {cases}; one file has one case, remove the wrong line"))
    return problems


def _wrong_case(record: Mapping[str, str], barcode: Barcode | None) -> str:
    """Why the case of a record is not known."""
    name, case = record["filename"], cell_value(record.get(ANSWER_CASE, ""))
    if several := [column for column in record if SECOND_CASE.fullmatch(column) and cell_value(record[column])]:
        return f"{name!r} is of several cases ({case}, {record[several[0]]}); remove the line"
    if barcode is None and not case:
        return f"{name!r} has no TCGA barcode (TCGA-XX-YYYY), or several"
    if barcode and case and case.upper() != barcode.case_id:
        return f"{name!r} is of case {case!r} by {ANSWER_CASE}, but of {barcode.case_id!r} by its name"
    return ""


def _unknown_site(record: Mapping[str, str], barcode: Barcode | None) -> str:
    if barcode is None or barcode.site in source_sites():
        return ""
    return f"{record['filename']!r} has the unknown site code {barcode.site!r}; add it to {SITES_FILE}"


def _no_slide(record: Mapping[str, str], barcode: Barcode | None) -> str:
    is_slide = Path(record["filename"]).suffix.lower() in SLIDE_SUFFIXES
    return "" if is_slide else f"{record['filename']!r} is not a slide; remove the line"


CHECKS: tuple[Callable[[Mapping[str, str], Barcode | None], str], ...] = (
    _missing_cells,
    _unsafe_names,
    _wrong_case,
    _unknown_site,
    _no_slide,
)
"""What may be wrong with a record, in words; empty if nothing. The first trouble of a line is told."""
