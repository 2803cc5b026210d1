"""The audit of a plan: what is known of each slide of the manifest, also of those that gave no patch; a row a slide."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from pipeline.base.outside import parse_object
from pipeline.disk.tables import write_records
from pipeline.sampling import SPLIT_NAMES

EXCLUDED = "excluded"
"""Status of a slide that was left out on purpose, which is no failure."""
STATUSES = ("ok", "damaged", "failed", EXCLUDED)
"""What the audit says of slides."""
ADDED_COLUMNS = (
    "classes_mm2",
    "annotations_sha256",
    "tissue_sha256",
    "dropped_mm2",
    "cluster_patches",
    "patches_covered",
    "covered_by",
)
"""Columns of the audit that are there only if a slide has something in them."""


@dataclass(frozen=True)
class AuditRow:
    """Results of `g2l plan` for one slide; a row of the audit table.

    `status` is ok, damaged (parts cannot be read), failed (`reason` says why; the slide has no rows), or `EXCLUDED`
    (by `--exclude-cases`; it was not read). Areas are in mm2. `mpp` is the value used; `own_mpp` and `manifest_mpp`
    are those of slide and manifest. `pixel_bytes` and `jpeg_bytes` are the mean sizes of `patches_measured` patches
    as lossless JPEG XL and as JPEG, to estimate the store's size; `plain_measured` of these are of one colour.
    `warnings` lists oddities of the slide. `row_hash` shows whether the slide's row of the manifest has changed.
    `classes_mm2` is JSON: the area of each class of the slide's annotations, within the slide. `annotations_sha256` and
    `tissue_sha256` are those of the files of annotations and of corrected tissue that were read. `dropped_mm2` is JSON:
    the area that each rule of the tissue finder dropped, by its name; empty if none ran. `cluster_patches` is JSON,
    with `--sample cluster`: by the number of each cluster, candidates and patches taken. `patches_covered` are those
    with enough tissue that are not available, for artefacts cover more of them than `--max-artefact` allows;
    `covered_by` is JSON: how many of them each rule covers most of, by its name.
    """

    slide_id: str
    status: str
    reason: str = ""
    path: str = ""
    case_id: str = ""
    center: str = ""
    split: str = ""
    vendor: str = ""
    width: int = 0
    height: int = 0
    levels: int = 0
    mpp: float | None = None
    mpp_source: str = ""
    own_mpp: float | None = None
    manifest_mpp: float | None = None
    level_read: int | None = None
    tissue_mm2: float | None = None
    unreadable_mm2: float | None = None
    patches_available: int = 0
    patches_taken: int = 0
    pixel_bytes: int | None = None
    jpeg_bytes: int | None = None
    patches_measured: int = 0
    plain_measured: int = 0
    warnings: str = ""
    row_hash: str = ""
    classes_mm2: str = ""
    annotations_sha256: str = ""
    tissue_sha256: str = ""
    dropped_mm2: str = ""
    cluster_patches: str = ""
    patches_covered: int = 0
    covered_by: str = ""

    def record(self) -> dict[str, Any]:
        """All columns, without those that earlier versions lacked where there is nothing to say in them."""
        return {name: value for name, value in asdict(self).items() if value or name not in ADDED_COLUMNS}

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Self:
        """The inverse of `record`. Columns of a later version are left out: they decide nothing.

        Raises:
            TypeError, ValueError: it is no row of an audit.
        """
        known = {column.name for column in fields(cls)}
        row = cls(**{name: value for name, value in dict(record).items() if name in known})
        row.dropped_areas()  # raises if it is none
        row.covering_rules()
        return row

    def dropped_areas(self) -> dict[str, float]:
        """The area that each rule dropped, mm2, by its name.

        Raises:
            ValueError: the record is not one.
        """
        areas = parse_object(self.dropped_mm2) if self.dropped_mm2 else {}
        return {name: float(area) for name, area in areas.items()}

    def covering_rules(self) -> dict[str, int]:
        """How many patches each rule covers most of, among those that artefacts cover too much of; by its name.

        Raises:
            ValueError: the record is not one.
        """
        counts = parse_object(self.covered_by) if self.covered_by else {}
        return {name: int(count) for name, count in counts.items()}

    def with_reason(self, words: str) -> "AuditRow":
        """This row with one more reason."""
        return replace(self, reason="; ".join(filter(None, (self.reason, words))))

    def with_warning(self, words: str) -> "AuditRow":
        """This row with one more warning."""
        return replace(self, warnings="; ".join(filter(None, (self.warnings, words))))


def split_column(split: NDArray[np.uint8]) -> str:
    """Names of the splits that codes (N,) have, as the audit gives them."""
    return "+".join(name for code, name in enumerate(SPLIT_NAMES) if (split == code).any())


def write_audit(rows: Sequence[AuditRow], path: Path) -> None:
    """Write the audit as CSV, one row a slide."""
    records = [row.record() for row in rows]
    used = {name for record in records for name in record}
    names = [f.name for f in fields(AuditRow) if f.name in used or f.name not in ADDED_COLUMNS]
    write_records(path, [asdict(row) for row in rows], names)
